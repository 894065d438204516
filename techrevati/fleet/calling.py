"""How a model call goes out: straight, as here, or through its gate and budget (`fleet.gated`).

turn.model, RoutedModel ─▶ Caller.call(name, request) ─▶ ModelReply | Refused: try another, wait, or park
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

from techrevati.fleet.models import ModelReply, ModelRequest, Models
from techrevati.fleet.outcome import Parked
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.gates import UnknownBucket

T = TypeVar("T")


class Refused(TechrevatiError):
    """A model may not be called now; nothing was sent.

    Attributes:
        why: what its gate says (breaker, rate, slots, …), "throttled" by the provider, or "budget".
        wait: seconds until it may be tried again, or None: waiting does not help.
    """

    def __init__(self, model: str, why: str, wait: float | None, detail: str = "") -> None:
        super().__init__(model, why, wait, detail)
        self.model, self.why, self.wait, self.detail = model, why, wait, detail

    def __str__(self) -> str:
        when = "" if self.wait is None else f"; try again in {self.wait:.3g} s"
        return f"model {self.model} is not called ({self.why}{': ' if self.detail else ''}{self.detail}){when}"


class Caller(Protocol):
    """What lets calls out."""

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        """Call the model at once.

        Raises:
            Refused: its gate or a budget does not admit it now.
            TimeoutError: no answer within the request's timeout.
        """


class Route(Protocol):
    """A model that is several: it lets out its calls by another's hand."""

    async def route(self, request: ModelRequest, caller: Caller) -> ModelReply: ...


def route_of(client: object) -> Route | None:
    """Give a client as a route, if it is one; on each call's way, so by its one method's name."""
    return cast(Route, client) if hasattr(client, "route") else None


class Straight:
    """Calls go out as they come."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        client = self._models[name]
        if request.costs:
            raise UnknownBucket(name, next(iter(request.costs)), ())
        async with asyncio.timeout(request.timeout):
            if (route := route_of(client)) is not None:
                return await route.route(request, self)
            return await client.complete(request)


async def patiently(attempt: Callable[[], Awaitable[T]], *, park_after: float, waits: Callable[[Refused], None]) -> T:
    """Try until it is admitted; a short wait is waited out in place, a longer one gives the turn's place back.

    Raises:
        Parked: the gate named in it admits only after more than `park_after` seconds.
        Exception: what refused it, if waiting does not help; what the attempt raised.
    """
    while True:
        try:
            return await attempt()
        except Refused as error:
            refused = error
        if refused.wait is None:
            raise refused.__cause__ or refused
        waits(refused)
        if refused.wait > park_after:
            raise Parked(refused.wait, f"gate:{refused.model}") from refused
        await asyncio.sleep(refused.wait)
