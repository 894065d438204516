"""Several models behind one name: the next that is admitted, another where one fails, a second where one is slow.

    request ─▶ router picks ─▶ admitted? ─▶ answer
                  ▲   refused or failed, no text delivered yet │
                  └─────────────────────────────────────────────┘

It knows neither Celery nor Redis: what admits is the `Caller` it is given, or nobody.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from techrevati.fleet.calling import Caller, Refused, Straight
from techrevati.fleet.failures import classify
from techrevati.fleet.hedging import Hedge, Race
from techrevati.fleet.latencies import Latencies
from techrevati.fleet.model_failures import ELSEWHERE, ModelFailed
from techrevati.fleet.models import ModelReply, ModelRequest, Models
from techrevati.fleet.providers import known_providers
from techrevati.fleet.sdks import NoProvider
from techrevati.runtime.retry_policy import FailureScenario, classify_exception
from techrevati.runtime.routing import ProviderRouter, StaticProviderRouter
from techrevati.store.errors import StoreError

log = logging.getLogger(__name__)

_SCENARIOS = {
    "llm_timeout": FailureScenario.LLM_TIMEOUT,
    "context_overflow": FailureScenario.CONTEXT_OVERFLOW,
    "dependency_failed": FailureScenario.PROVIDER_FAILURE,
    "validation_error": FailureScenario.PROVIDER_FAILURE,
}


def falls_over(error: Exception) -> bool:
    """Whether another model may answer what this one did not."""
    if isinstance(error, ModelFailed):
        return error.elsewhere
    if isinstance(error, StoreError):  # ours, and the next model's as well
        return False
    return isinstance(error, NoProvider) or classify(error) in ELSEWHERE


class RoutedModel:
    """A model that is several, tried in the router's order.

    Args:
        models: names as `turn.model` knows them, the preferred first.
        router: which comes next; by default their order here.
        clients: where the names are found when nobody else calls for it: outside of a turn.
        fall_over: which errors send the call to the next model; by default those of one provider.
        restart: also after text was delivered; `on_event` hears ``restart`` and the text begins anew.
        hedge: ask a second model when the first is silent for longer than it usually is.
        timeout: seconds one model may take before the next is asked.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        router: ProviderRouter | None = None,
        clients: Models | None = None,
        fall_over: Callable[[Exception], bool] = falls_over,
        restart: bool = False,
        hedge: Hedge | None = None,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not models or len(set(models)) != len(models):
            raise ValueError(f"models={list(models)!r} is refused: name one or more, each once")
        self.models = tuple(models)
        self._router = router or StaticProviderRouter(self.models)
        self._straight = Straight(known_providers(Models()) if clients is None else clients)
        self._fall_over, self._restart, self._hedge, self._timeout = fall_over, restart, hedge, timeout
        self._clock = clock
        self.latencies = {name: Latencies() for name in self.models}

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Call the models without gates; what is raised, `route` says."""
        return await self.route(request, self._straight)

    async def route(self, request: ModelRequest, caller: Caller) -> ModelReply:
        """Call the models through `caller` until one answers; the reply's `tried` tells of the others.

        Raises:
            Refused: none is admitted; of several, the one that will be soonest.
            Exception: what the last one raised, if it is not one to fall over, or no other is left.
        """
        tried: list[dict[str, Any]] = []
        denied: list[str] = []
        refusals: list[Refused] = []
        failure: Exception | None = None
        scenario, current = FailureScenario.LLM_ERROR, None
        while (name := self._next(scenario, len(denied) + 1, current, denied)) is not None:
            race = Race(request, caller, self.latencies, self._timeout, self._clock)
            second = partial(self._next, scenario, len(denied) + 1, name, [*denied, name])
            try:
                reply = await race.run(name, self._hedge, second)
            except Refused as refused:
                refusals.append(refused)
                scenario = FailureScenario.PROVIDER_FAILURE
            except Exception as error:
                if not self._fall_over(error) or (race.spoken and not self._restart):
                    raise
                failure, scenario = error, _scenario(error)
                log.warning("%s; another model is tried", error)
                _tell_restart(request, name, race)
            else:
                return replace(reply, tried=[*tried, *race.lost, *reply.tried])
            tried += race.lost
            denied += race.failed
            current = name
        if failure is None:
            if not refusals:
                raise ValueError(f"router {self._router!r} chose none of {list(self.models)}; fix: let it name them")
            raise min(refusals, key=lambda one: float("inf") if one.wait is None else one.wait)
        failure.add_note(f"models tried: {tried}")
        raise failure

    def _next(self, scenario: FailureScenario, attempt: int, current: str | None, denied: Sequence[str]) -> str | None:
        name = self._router.select(scenario=scenario, attempt=attempt, current=current, exclude=tuple(denied))
        # A router may answer with one that was denied, rather than with none.
        return name if name in self.models and name not in denied else None


def _tell_restart(request: ModelRequest, name: str, race: Race) -> None:
    if race.spoken and (on_event := request.options.get("on_event")) is not None:
        on_event("restart", {"model": name})


def _scenario(error: Exception) -> FailureScenario:
    if isinstance(error, ModelFailed):
        return _SCENARIOS.get(error.failure, FailureScenario.LLM_ERROR)
    return classify_exception(error)
