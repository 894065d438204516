"""Quality gate: is what was observed at least what is required?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class QualityLevel(IntEnum):
    """How good the work is, in rising order."""

    MINIMAL = 1
    STANDARD = 2
    STRICT = 3
    RELEASE = 4

    @property
    def label(self) -> str:
        """The name as a heading: ``Standard``."""
        return self.name.title()


@dataclass(frozen=True)
class QualityGateOutcome:
    """What a gate said, and about what."""

    satisfied: bool
    required_level: QualityLevel
    observed_level: QualityLevel | None

    def is_satisfied(self) -> bool:
        """Whether the gate opened."""
        return self.satisfied

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping, levels by name."""
        return {
            "satisfied": self.satisfied,
            "required_level": self.required_level.name,
            "observed_level": None if self.observed_level is None else self.observed_level.name,
        }


@dataclass(frozen=True)
class QualityGate:
    """Opens at `required_level` and above; nothing observed never opens it."""

    required_level: QualityLevel

    def evaluate(self, observed: QualityLevel | None) -> QualityGateOutcome:
        """Compare, and keep both sides in the answer."""
        satisfied = observed is not None and observed >= self.required_level
        return QualityGateOutcome(satisfied, self.required_level, observed)

    def is_satisfied_by(self, observed: QualityLevel | None) -> bool:
        """`evaluate`, as a claim."""
        return self.evaluate(observed).satisfied
