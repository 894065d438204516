"""The clock of a script that has a key of its own: it never falls.

Twin: ``lua/_clock.lua``.
"""

from techrevati.store.twin.unit import CLOCK_STEP, Refused


def read(stored: int, given: int) -> tuple[int, int]:
    """Give the time it is, and the time to store: the clock is written when it moved by `CLOCK_STEP`."""
    now = max(stored, given)
    return now, now if now >= stored + CLOCK_STEP else stored


def check(minimum: int | None, protocol: int) -> None:
    """Refuse an old caller."""
    if minimum is not None and protocol < minimum:
        raise Refused(-10, str(minimum))
