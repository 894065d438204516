"""The Lua scripts, whole and by name.

    run_claim.lua ── "-- include: _unit _homes" ──▶ fragments + script ──▶ source, sha1

A fragment is Lua that several scripts share (leading underscore).  Redis knows only whole scripts.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PROTOCOL = 1
"""What this release speaks; `clock:{t}.min` refuses callers below it."""

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script as it is sent to Redis."""

    name: str
    source: str
    sha: str


def _read(name: str) -> str:
    return files("techrevati.store").joinpath("lua", f"{name}.lua").read_text("utf-8")


def _strip(source: str) -> str:
    """Drop comments and blank lines: they are for us, and each server keeps the text in memory."""
    lines = (line.split(" -- ")[0].rstrip() for line in source.splitlines())
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("--"))


@cache
def script(name: str) -> Script:
    """Give a script with its fragments in front, read once per process."""
    text = _read(name)
    include = _INCLUDE.search(text)
    parts = [*(_read(fragment) for fragment in include[1].split()), text] if include else [text]
    # Each part is a function inside the one before: Lua finds what an inner function takes from outside by place,
    # what it takes from its own level by a search.  With 60 functions per call that is a third of making them.
    source = "\nreturn (function()\n".join(_strip(part) for part in parts) + "\nend)()" * (len(parts) - 1)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def names() -> list[str]:
    """Every script there is, sorted."""
    found = (entry.name for entry in files("techrevati.store").joinpath("lua").iterdir())
    return sorted(name[:-4] for name in found if name.endswith(".lua") and not name.startswith("_"))
