"""What a session can be given beyond the fields of its factory.

with factory.session(extras=SessionExtras(hooks=(Trim(),), output=JsonOutput(schema))) as s:
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from techrevati.runtime.guardrails import AsyncGuardrail
from techrevati.runtime.hooks import Hook
from techrevati.runtime.outputs import OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExtras:
    """Options of one session; the defaults change nothing.

    `hooks` go around model, tool and handoff; `async_guardrails` are asked after the factory's
    (async sessions only); `output` checks each turn's result before it is kept; `redact` is
    applied to the failure texts that leave the session (events, worker, log); `claim_ttl` is how
    long, in seconds, a keyed turn keeps others out if this process dies; `clock` measures the
    elapsed time of policies.
    """

    hooks: tuple[Hook, ...] = ()
    async_guardrails: tuple[AsyncGuardrail, ...] = ()
    output: OutputSpec[Any] | None = None
    redact: Callable[[str], str] | None = None
    claim_ttl: float = 300.0
    clock: Callable[[], float] = time.monotonic

    @property
    def shapes_turns(self) -> bool:
        """Whether a turn's result passes through anything."""
        return bool(self.hooks) or self.output is not None


PLAIN = SessionExtras()
