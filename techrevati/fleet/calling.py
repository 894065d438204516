"""How a model call goes out: straight, as here, or through its gate and budget (`fleet.gated`).

RoutedModel ─▶ Caller.call(name, request) ─▶ ModelReply | Refused: try another, or wait
"""

from typing import Literal, Protocol, runtime_checkable

from techrevati.fleet.models import ModelReply, ModelRequest, Models
from techrevati.runtime.errors import TechrevatiError

Why = Literal["breaker", "rate", "slots", "budget"]


class Refused(TechrevatiError):
    """A model may not be called now; nothing was sent.

    Attributes:
        wait: seconds until it may be tried again, or None: waiting does not help.
    """

    def __init__(self, model: str, why: Why, wait: float | None, detail: str = "") -> None:
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
        """


@runtime_checkable
class Route(Protocol):
    """A model that is several: it lets out its calls by another's hand."""

    async def route(self, request: ModelRequest, caller: Caller) -> ModelReply: ...


class Straight:
    """Calls go out as they come."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        client = self._models[name]
        if isinstance(client, Route):
            return await client.route(request, self)
        return await client.complete(request)
