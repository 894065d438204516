"""Names of budgets on Redis: one hash tag per tenant, so one script sees every level.

tenant acme ─▶ {fleet/acme} ─▶ budget:{fleet/acme} · :level:<id> · :call:<id> · :open · :log
"""

import re
from dataclasses import dataclass

from techrevati.store.errors import BadName
from techrevati.store.keys import check_role, check_tenant

_NAME = re.compile(r"[^{}\x00-\x1f\x7f\ud800-\udfff]{1,200}")
RULE = "1-200 bytes without braces or control characters"


def check_name(what: str, name: str) -> str:
    """Refuse a name that could not be part of a key.

    Raises:
        BadName: it is empty, over 200 bytes, or has braces or control characters.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > 200:
        raise BadName(what, name, RULE)
    return name


@dataclass(frozen=True, slots=True)
class BudgetKeys:
    """The key names of one tenant's budgets; the mirror of ``lua/_budget.lua``."""

    fleet: str
    tenant: str

    def __post_init__(self) -> None:
        check_role(self.fleet, "fleet")
        check_tenant(self.tenant)

    @property
    def clock(self) -> str:
        """Hash: time never falls (`us`), minimal protocol (`min`), entries in the log (`seq`)."""
        return f"budget:{{{self.fleet}/{self.tenant}}}"

    @property
    def open(self) -> str:
        """Sorted set: open reservations by expiry."""
        return f"{self.clock}:open"

    @property
    def log(self) -> str:
        """Stream: thresholds, refusals, write-offs, corrections, settings."""
        return f"{self.clock}:log"

    @property
    def projects(self) -> str:
        """Sorted set: level ids of projects by the time they were last used."""
        return f"{self.clock}:projects"

    def level(self, level: str) -> str:
        return f"{self.clock}:level:{level}"

    def call(self, call_id: str) -> str:
        return f"{self.clock}:call:{call_id}"


def tenants_key(fleet: str) -> str:
    """Set: tenants that have books."""
    return f"budgets:{{{fleet}}}"


def expiries_key(fleet: str) -> str:
    """Sorted set: tenants that may have reservations open, by when to look at them next (us)."""
    return f"{tenants_key(fleet)}:expiries"


def call_id(run_id: str, turn: int, fence: int | str, ordinal: int) -> str:
    """Name one call of one attempt at a turn; a token may stand for its fence."""
    return check_name("call id", f"{run_id}:{turn}:{str(fence).partition('.')[0]}:{ordinal}")
