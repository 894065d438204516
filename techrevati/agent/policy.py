"""What one run may use: tools, skills, agents.

    request policy ──filled from──▶ agent definition ──▶ RunPolicy ──allows──▶ catalogue, prompt, gate

An id is allowed iff the allow list is absent or names it, and the exclude list does not.  An allow list
that is present and empty allows nothing, here and everywhere (decision 0301).
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

Subject = Literal["tools", "skills", "agents"]
Ids = tuple[str, ...] | None


def permitted(name: str, allowed: Ids, excluded: Ids) -> bool:
    """Say whether `name` passes both lists; exclude beats allow."""
    return (allowed is None or name in allowed) and (excluded is None or name not in excluded)


def _normal(ids: Iterable[str] | None) -> Ids:
    return None if ids is None else tuple(dict.fromkeys(text for entry in ids if (text := entry.strip())))


class RunPolicy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The lists of one run.  None is no list; entries are trimmed, blanks and repeats dropped."""

    allowed_tools: Ids = None
    excluded_tools: Ids = None
    allowed_skills: Ids = None
    excluded_skills: Ids = None
    allowed_agents: Ids = None
    excluded_agents: Ids = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            msgspec.structs.force_setattr(self, name, _normal(getattr(self, name)))

    def filled_from(self, other: "RunPolicy") -> "RunPolicy":
        """Take from `other` only the lists that are still absent here."""
        return RunPolicy(**{n: getattr(other if getattr(self, n) is None else self, n) for n in self.__struct_fields__})

    def allows(self, subject: Subject, name: str) -> bool:
        return permitted(name, getattr(self, f"allowed_{subject}"), getattr(self, f"excluded_{subject}"))

    def allows_tool(self, name: str) -> bool:
        return self.allows("tools", name)

    def allows_skill(self, name: str) -> bool:
        return self.allows("skills", name)

    def allows_agent(self, name: str) -> bool:
        return self.allows("agents", name)
