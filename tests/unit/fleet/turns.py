"""A turn whose lines lead nowhere but to a list."""

from typing import Any

from techrevati.fleet.conversation import Messages
from techrevati.fleet.models import ModelReply, ModelRequest, Models
from techrevati.fleet.state import State
from techrevati.fleet.turn import Turn
from techrevati.store.records import InboxEntry

LIMIT = 1 << 20


class Said:
    """What a turn has said to the store; the first result of a step wins, as it does there."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.ended: list[list[tuple[str, str]]] = []
        self.deltas: list[tuple[str, str]] = []
        self.known: dict[str, str] = {}
        self.arrived: list[InboxEntry] = []

    async def step_begin(self, key: str, policy: str, journal: list[tuple[str, str]]) -> str | None:
        self.begun.append((key, policy))
        return self.known.get(key)

    async def step_end(self, journal: list[tuple[str, str]]) -> str:
        self.ended.append(journal)
        return self.known.setdefault(*journal[-1])

    async def mail(self) -> list[InboxEntry]:
        return self.arrived

    def delta(self, kind: str, data: str) -> None:
        self.deltas.append((kind, data))


class Echo:
    """A model that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.calls.append(request)
        request.options["on_delta"]("ech")
        return ModelReply("echo", input_tokens=3, output_tokens=2, cost_micros=5, model=request.model)


def make_turn(
    *,
    state: dict[str, str] | None = None,
    stored: tuple[str, ...] = (),
    inbox: tuple[InboxEntry, ...] = (),
    journal: dict[str, str] | None = None,
    model: Echo | None = None,
    now: float = 1000.0,
    **fields: Any,
) -> tuple[Turn, Said]:
    said, models = Said(), Models()
    models.register("echo", model or Echo())
    turn = Turn(
        fields={"thread": "t", "tenant": "acme", "role": "writer", "turn": "1", "agent": "write", **fields},
        run_id="r1",
        token="1.a",
        state=State(state or {}, LIMIT),
        messages=Messages(stored, LIMIT),
        inbox=inbox,
        journal=journal or {},
        models=models,
        lines=said,
        limit=LIMIT,
        park_after=1.0,
        clock=lambda: now,
    )
    return turn, said
