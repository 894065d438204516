"""Typed states that the tests of the loop share."""

from typing import Any, ClassVar

import msgspec

from techrevati.agent.state.registers import GCounter
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec


class Count(StateSpec):
    """A plain number: parallel writers conflict."""

    PATH = ("count",)
    ACTION: ClassVar[Any] = int
    value: int = 0

    def reduce(self, action: int) -> None:
        self.value += action


class Votes(StateSpec):
    """A counter that joins: parallel writers do not conflict."""

    PATH = ("votes",)
    ACTION: ClassVar[Any] = int
    total: GCounter = msgspec.field(default_factory=GCounter)

    def reduce(self, action: int) -> None:
        self.total.increment(action)


class Note(StateSpec):
    """A state of one tool call."""

    PATH = ("note",)
    SCOPE = StateScope.TOOL_CALL
    ACTION: ClassVar[Any] = str
    text: str = ""

    def reduce(self, action: str) -> None:
        self.text = action


class OfRun(StateSpec):
    """A state of one run."""

    PATH = ("of_run",)
    SCOPE = StateScope.RUN
    ACTION: ClassVar[Any] = int
    value: int = 0

    def reduce(self, action: int) -> None:
        self.value += action


def add(n: int) -> AnyStateAction:
    return AnyStateAction.new(Count, n)


def vote(n: int) -> AnyStateAction:
    return AnyStateAction.new(Votes, n)
