"""Which skills a thread has taken up."""

from typing import ClassVar

import msgspec

from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import SKILLS
from techrevati.agent.state.registers import GSet
from techrevati.agent.state.spec import StateSpec


class ActivateSkill(msgspec.Struct, frozen=True, tag="activate"):
    name: str


class ActiveSkills(StateSpec):
    PATH: ClassVar[Path] = SKILLS
    NAME = "ActiveSkills"
    ACTION = ActivateSkill

    active: GSet[str] = msgspec.field(default_factory=GSet)

    def reduce(self, action: ActivateSkill) -> None:
        self.active.insert(action.name)
