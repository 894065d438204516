"""Timestamps as records carry them: ISO 8601, UTC."""

from datetime import UTC, datetime


def iso_now() -> str:
    """The wall clock now, as ``2026-01-01T00:00:00.000000+00:00``."""
    return datetime.now(UTC).isoformat()
