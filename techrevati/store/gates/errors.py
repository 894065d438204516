"""What a gate refuses, and why."""

from typing import Any

from techrevati.store.errors import StoreError


class BadGate(StoreError, ValueError):
    """A gate was declared with a value it cannot have."""

    def __init__(self, what: str, value: Any, rule: str) -> None:
        super().__init__(what, value, rule)
        self.what, self.value, self.rule = what, value, rule

    def __str__(self) -> str:
        return f"{self.what} = {self.value!r} is refused: use {self.rule}"


class UnknownBucket(StoreError, ValueError):
    """A cost names a dimension the gate does not have."""

    def __init__(self, gate: str, bucket: str, known: tuple[str, ...]) -> None:
        super().__init__(gate, bucket, known)
        self.gate, self.bucket, self.known = gate, bucket, known

    def __str__(self) -> str:
        known = f", or use one it has: {', '.join(self.known)}" if self.known else "; it has none"
        return f"gate {self.gate!r} has no bucket {self.bucket!r}; fix: declare it{known}"


class CostTooLarge(StoreError, ValueError):
    """A call costs more than a bucket ever holds, so it would wait for ever."""

    def __init__(self, gate: str, bucket: str, cost: float, capacity: float) -> None:
        super().__init__(gate, bucket, cost, capacity)
        self.gate, self.bucket, self.cost, self.capacity = gate, bucket, cost, capacity

    def __str__(self) -> str:
        return (
            f"gate {self.gate!r}: a cost of {self.cost:g} is over the capacity {self.capacity:g} of bucket "
            f"{self.bucket!r}; fix: split the call, or raise the limit"
        )


class BadCost(StoreError, ValueError):
    """A cost is negative, or not a number."""

    def __init__(self, gate: str, bucket: str, cost: Any) -> None:
        super().__init__(gate, bucket, cost)
        self.gate, self.bucket, self.cost = gate, bucket, cost

    def __str__(self) -> str:
        return f"gate {self.gate!r}: a cost of {self.cost!r} for {self.bucket!r} is refused: use a number, 0 or more"


class GateRefused(StoreError):
    """The gate does not let the call out now; nothing was called.

    Attributes:
        gate: its name.
        why: "breaker", "ramp", "rate", "slots", "quarantined", "forced" or "store".
        wait: seconds until it may be tried again, None if nobody can tell.
        booked: that time is reserved for this caller's booking.
    """

    __slots__ = ("booked", "gate", "wait", "why")  # a storm of callers makes one each: a third less work

    def __init__(self, gate: str, why: str, wait: float | None, booked: bool = False) -> None:
        Exception.__init__(self, gate, why, wait, booked)
        self.gate, self.why, self.wait, self.booked = gate, why, wait, booked

    def __str__(self) -> str:
        when = "" if self.wait is None else f"; {'booked for' if self.booked else 'try again in'} {self.wait:.3g} s"
        return f"gate {self.gate!r} is closed to this call ({self.why}){when}"
