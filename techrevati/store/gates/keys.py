"""Names on Redis of one gate: a hash tag of its own, so that gates spread over a cluster."""

from dataclasses import dataclass

from techrevati.store.gates.spec import check_gate
from techrevati.store.keys import check_role


@dataclass(frozen=True, slots=True)
class GateKeys:
    """The key names of one gate; the mirror of ``lua/_gate.lua``."""

    fleet: str
    gate: str

    def __post_init__(self) -> None:
        check_role(self.fleet, "fleet")
        check_gate(self.gate)

    @property
    def tag(self) -> str:
        return f"{{{self.fleet}/gate/{self.gate}}}"

    @property
    def clock(self) -> str:
        """Hash: clock, declaration, breaker, levels, calls under way (`c:`), bookings (`b:`), quarantines (`x:`)."""
        return f"gate:{self.tag}"

    @property
    def ends(self) -> str:
        """Sorted set: fields of the hash, by the time they are over (us)."""
        return f"ends:{self.tag}"

    @property
    def line(self) -> str:
        """Sorted set: bookings too far ahead for a promised time, by rank."""
        return f"line:{self.tag}"

    @property
    def slots(self) -> str:
        """Sorted set: bookings that wait for a slot, by rank (us of arrival, less 30 s for each step of priority)."""
        return f"slots:{self.tag}"

    @property
    def tags(self) -> str:
        """Hash: virtual time (`v`), finish tag of each tenant (`t:`), cost in line per bucket (`s:`)."""
        return f"tags:{self.tag}"

    @property
    def evid(self) -> str:
        """Hash: worker -> "failures-in-a-row run last-us"."""
        return f"evid:{self.tag}"

    @property
    def news(self) -> str:
        """Channel: the breaker changed, or the declaration."""
        return f"news:{self.tag}"

    def ear(self, process: str) -> str:
        """Channel: to one process that waits for slots."""
        return f"news:{self.tag}:{process}"
