"""SKILL.md: YAML front matter between two ``---`` lines, then instructions in Markdown.

    text ──split──▶ front matter ──strict YAML──▶ keys and types checked ──▶ Manifest, instructions

Source: the Agent Skills specification, agentskills.io.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import yaml

from techrevati.agent.errors import AgentError

MAX_FRONT_MATTER = 16 * 1024
_KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)(.*)\Z", re.DOTALL | re.MULTILINE)


class InvalidSkill(AgentError):
    """A SKILL.md that does not follow the format."""

    code = "invalid_skill_md"

    def __init__(self, where: str, cause: str) -> None:
        super().__init__(where, cause)
        self.where, self.cause = where, cause

    def __str__(self) -> str:
        return f"{self.where}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a skill says of itself."""

    name: str
    description: str
    license: str | None = None
    compatibility: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    allowed_tools: tuple[str, ...] = ()
    """Tokens as written: ``search``, or scoped as ``shell(git:*)``."""

    @property
    def granted_tools(self) -> tuple[str, ...]:
        """The tokens that name a whole tool: what activating the skill allows."""
        return tuple(token for token in self.allowed_tools if re.fullmatch(r"[\w.:-]+", token))


class _Loader(yaml.SafeLoader):
    """Plain data only: no aliases (a few bytes of them make gigabytes), no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"key {min(twice)!r} stands twice")
        return super().construct_mapping(node, deep)


def skill_name(text: str) -> str:
    """Bring a skill's name to its one form: trimmed and NFKC-normalised, so that look-alikes are one name."""
    return unicodedata.normalize("NFKC", text.strip())


def parse_skill(text: str, *, where: str = "SKILL.md") -> tuple[Manifest, str]:
    """Read a SKILL.md: what it says of itself, and its instructions.

    Raises:
        InvalidSkill: no front matter, not YAML, an unknown key, a value of the wrong type or length.
    """
    found = _FRONT.match(text)
    if found is None:
        raise InvalidSkill(where, "no front matter; fix: begin the file with '---', YAML lines, '---'")
    front, instructions = found.groups()
    if len(front) > MAX_FRONT_MATTER:
        raise InvalidSkill(where, f"front matter of {len(front):,} characters; fix: at most {MAX_FRONT_MATTER:,}")
    try:
        record = yaml.load(front, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # ValueError: a date that is none
        raise InvalidSkill(where, f"front matter is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise InvalidSkill(where, "front matter is not a mapping; fix: write 'name: …' and 'description: …'")
    if unknown := sorted(str(key) for key in record if key not in _KEYS):
        raise InvalidSkill(where, f"unknown key {', '.join(unknown)}; known: {', '.join(sorted(_KEYS))}")
    return _manifest(record, where), instructions.strip()


def _manifest(record: dict[str, Any], where: str) -> Manifest:
    name = skill_name(_string(record, "name", where, 64) or "")
    if not _is_name(name):
        raise InvalidSkill(
            where,
            f"name {name!r} is refused; fix: lower-case letters, digits and single hyphens between them, up to 64",
        )
    description = _string(record, "description", where, 1024)
    if not description:
        raise InvalidSkill(where, "description is missing; fix: say what the skill does and when to use it")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise InvalidSkill(where, "metadata is not a mapping of text to text")
    if wrong := [key for key, value in metadata.items() if isinstance(value, dict | list)]:
        raise InvalidSkill(where, f"metadata {wrong[0]!r} is not plain text")
    tools = record.get("allowed-tools") or ""
    tokens = tools if isinstance(tools, list) else tool_tokens(tools) if isinstance(tools, str) else None
    if tokens is None or not all(isinstance(token, str) and token.strip() for token in tokens):
        raise InvalidSkill(where, "allowed-tools is not a list of tool names; fix: write 'allowed-tools: search fetch'")
    return Manifest(
        name,
        description,
        _string(record, "license", where, 1024),
        _string(record, "compatibility", where, 500),
        {key: str(value) for key, value in metadata.items()},
        tuple(dict.fromkeys(token.strip() for token in tokens)),
    )


def _string(record: dict[str, Any], key: str, where: str, limit: int) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidSkill(where, f"{key} is {type(value).__name__}, not text; fix: put it in quotes")
    if len(value := value.strip()) > limit:
        raise InvalidSkill(where, f"{key} has {len(value)} characters; fix: at most {limit}")
    return value


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= 64
        and name == name.lower()
        and all(part and all(letter.isalnum() for letter in part) for part in name.split("-"))
    )


def tool_tokens(text: str) -> list[str]:
    """Split ``search shell(git add:*), fetch`` at spaces and commas that are not inside brackets."""
    return re.findall(r"[^\s,()]+(?:\([^)]*\))?", text)
