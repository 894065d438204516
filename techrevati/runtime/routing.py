"""Which provider to try next.  Sessions carry a router; they never call it themselves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from techrevati.runtime.retry_policy import FailureScenario, next_provider


@runtime_checkable
class ProviderRouter(Protocol):
    """Choose a provider; `None` means nothing acceptable.  `attempt` counts from 1."""

    def select(
        self,
        *,
        scenario: FailureScenario,
        attempt: int,
        current: str | None,
        exclude: Sequence[str] = (),
    ) -> str | None: ...


def _denied(current: str | None, exclude: Sequence[str]) -> set[str]:
    return set(exclude) if current is None else {*exclude, current}


@dataclass(frozen=True)
class StaticProviderRouter:
    """A fixed order of preference.

    When every provider is denied, one that merely differs from `current` is better than none.
    """

    available_providers: tuple[str, ...]

    def select(
        self,
        *,
        scenario: FailureScenario,
        attempt: int,
        current: str | None,
        exclude: Sequence[str] = (),
    ) -> str | None:
        """The first provider not denied, else the first that is not `current`."""
        denied = _denied(current, exclude)
        for provider in self.available_providers:
            if provider not in denied:
                return provider
        if current is None:
            return next(iter(self.available_providers), None)
        return next_provider(list(self.available_providers), current)


@dataclass
class RoundRobinProviderRouter:
    """Everyone in turn.  One cursor for all callers, safe for threads."""

    available_providers: tuple[str, ...]
    _cursor: int = field(default=0, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def select(
        self,
        *,
        scenario: FailureScenario,
        attempt: int,
        current: str | None,
        exclude: Sequence[str] = (),
    ) -> str | None:
        """The first provider not denied from the cursor on; the cursor moves past it."""
        denied = _denied(current, exclude)
        providers = self.available_providers
        with self._lock:
            for step in range(len(providers)):
                index = (self._cursor + step) % len(providers)
                if providers[index] not in denied:
                    self._cursor = (index + 1) % len(providers)
                    return providers[index]
        return None


@dataclass(frozen=True)
class WeightedProviderRouter:
    """The heaviest provider not denied; a weight of zero or less switches one off."""

    providers: tuple[tuple[str, float], ...]

    def select(
        self,
        *,
        scenario: FailureScenario,
        attempt: int,
        current: str | None,
        exclude: Sequence[str] = (),
    ) -> str | None:
        """The heaviest provider not denied; the earlier one of equals."""
        denied = _denied(current, exclude)
        usable = [entry for entry in self.providers if entry[0] not in denied and entry[1] > 0]
        return max(usable, key=lambda entry: entry[1])[0] if usable else None
