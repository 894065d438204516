"""Where skills come from: directories with a SKILL.md, or texts in the program.

source ──look──▶ Shelf: skills by name, and what is wrong with those that cannot be used
"""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from techrevati.agent.behaviours.skills.files import BadResource, FileText, locate, read_bytes, read_text
from techrevati.agent.behaviours.skills.manifest import InvalidSkill, Manifest, parse_skill, skill_name

RESOURCES = ("references", "assets")
SCRIPTS = ("scripts",)
MAX_SKILL_FILE = 512 * 1024


class Skill(Protocol):
    """One skill, ready to be taken up."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def instructions(self) -> str: ...

    def resource(self, path: str, *, limit: int) -> FileText:
        """Read a resource (blocking).  Raises BadResource."""
        ...

    def script(self, path: str) -> tuple[Path, Path]:
        """Give a script and the directory it runs in (blocking).  Raises BadResource."""
        ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a source holds now; `unusable` has the reason by directory or name."""

    skills: Mapping[str, Skill] = field(default_factory=dict)
    unusable: Mapping[str, InvalidSkill] = field(default_factory=dict)


class SkillSource(Protocol):
    """Anything that holds skills."""

    async def look(self) -> Shelf:
        """Give what there is now; called at every step, so answer from memory what has not changed."""
        ...


@dataclass(frozen=True, slots=True)
class DirectorySkill:
    manifest: Manifest
    instructions: str
    root: Path

    def resource(self, path: str, *, limit: int) -> FileText:
        return read_text(self.root, path, folders=RESOURCES, limit=limit)

    def script(self, path: str) -> tuple[Path, Path]:
        return locate(self.root, path, SCRIPTS), self.root


@dataclass(frozen=True, slots=True)
class EmbeddedSkill:
    """A skill whose texts are in the program; it has no scripts."""

    manifest: Manifest
    instructions: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, files: Mapping[str, str] | None = None) -> "EmbeddedSkill":
        """Read the text of a SKILL.md.

        Raises:
            InvalidSkill: it is none.
        """
        manifest, instructions = parse_skill(text)
        return cls(manifest, instructions, dict(files or {}))

    def resource(self, path: str, *, limit: int) -> FileText:
        if path not in self.files or not path.startswith(tuple(f"{name}/" for name in RESOURCES)):
            raise BadResource(path, "no such file")
        content = self.files[path]
        raw = content.encode()
        head = raw[:limit].decode("utf-8", "ignore")  # a cut inside a character drops that character only
        return FileText(path, head, sha256(raw).hexdigest(), len(raw), len(raw) > limit)

    def script(self, path: str) -> tuple[Path, Path]:
        raise BadResource(path, "this skill has no scripts")


class EmbeddedSkills:
    """Skills that are part of the program.

    Raises:
        InvalidSkill: two of them have one name.
    """

    def __init__(self, skills: Sequence[EmbeddedSkill]) -> None:
        found: dict[str, Skill] = {}
        for skill in skills:
            name = skill.manifest.name
            if name in found:
                raise InvalidSkill(name, "two embedded skills have this name; fix: rename one")
            found[name] = skill
        self._shelf = Shelf(MappingProxyType(found))

    async def look(self) -> Shelf:
        return self._shelf


class DirectorySkills:
    """The skills of the directories below `root`, each looked at again only when its SKILL.md has changed."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._known: dict[Path, tuple[tuple[int, int, int], DirectorySkill | InvalidSkill]] = {}
        self._lock = threading.Lock()

    async def look(self) -> Shelf:
        return await asyncio.to_thread(self.scan)

    def scan(self) -> Shelf:
        """Give what there is now (blocking).  A root that does not exist holds nothing."""
        with self._lock:
            try:
                entries = sorted(os.scandir(self.root), key=lambda entry: entry.name)
            except OSError:
                return Shelf()
            skills: dict[str, Skill] = {}
            unusable: dict[str, InvalidSkill] = {}
            seen = {}
            for entry in entries:
                root = Path(entry.path)
                read = self._read(root)
                if read is None:
                    continue
                seen[root] = read
                if isinstance(read[1], InvalidSkill):
                    unusable[entry.name] = read[1]
                else:
                    skills[read[1].manifest.name] = read[1]
            self._known = seen
            return Shelf(MappingProxyType(skills), MappingProxyType(unusable))

    def _read(self, root: Path) -> tuple[tuple[int, int, int], DirectorySkill | InvalidSkill] | None:
        file = root / "SKILL.md"
        try:
            about = file.stat()
        except OSError:
            return None
        mark = (about.st_mtime_ns, about.st_size, about.st_ino)
        known = self._known.get(root)
        if known is not None and known[0] == mark:
            return known
        try:
            return mark, self._parse(root, file)
        except InvalidSkill as error:
            return mark, error

    def _parse(self, root: Path, file: Path) -> DirectorySkill:
        where = f"{root.name}/SKILL.md"
        try:
            real = file.resolve(strict=True)
            if not real.is_relative_to(root.resolve(strict=True)):
                raise InvalidSkill(where, "leads out of the skill's directory")
            raw, size, _ = read_bytes(real, limit=MAX_SKILL_FILE)
            text = raw.decode("utf-8")
        except (BadResource, OSError) as error:
            raise InvalidSkill(where, str(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidSkill(where, "not UTF-8 text") from error
        if size > MAX_SKILL_FILE:
            raise InvalidSkill(where, f"{size:,} bytes; fix: at most {MAX_SKILL_FILE:,}, the rest as references/…")
        manifest, instructions = parse_skill(text, where=where)
        if skill_name(root.name) != manifest.name:
            raise InvalidSkill(where, f"its name is {manifest.name!r}; fix: name the directory {manifest.name!r} too")
        return DirectorySkill(manifest, instructions, root)


class SkillSources:
    """Several sources as one; of two skills of one name, the earlier source's is used."""

    def __init__(self, *sources: SkillSource) -> None:
        self._sources = sources

    async def look(self) -> Shelf:
        shelves = await asyncio.gather(*(source.look() for source in self._sources))
        skills: dict[str, Skill] = {}
        unusable: dict[str, InvalidSkill] = {}
        for shelf in reversed(shelves):
            skills |= shelf.skills
            unusable |= shelf.unusable
        return Shelf(skills, unusable)
