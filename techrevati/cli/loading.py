"""Finding the user's fleet: ``MODULE:attribute``, with the current directory on the path."""

import importlib
import sys
from pathlib import Path

from techrevati.fleet.fleet import Fleet
from techrevati.runtime.errors import TechrevatiError


class NoFleet(TechrevatiError):
    """What the command line names is not a fleet."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target, self.reason = target, reason

    def __str__(self) -> str:
        return f"{self.target!r} is not a fleet: {self.reason}; fix: give MODULE:NAME, such as examples.newsroom:fleet"


def load_fleet(target: str, *, directory: Path | None = None) -> Fleet:
    """Import a fleet.

    Raises:
        NoFleet: the module or the attribute is not there, or is something else.
    """
    module_name, _, attribute = target.partition(":")
    place = str(directory or Path.cwd())
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise NoFleet(target, f"there is no module {error.name!r} in {place} or on the path") from None
        raise
    found = getattr(module, attribute or "fleet", None)
    if not isinstance(found, Fleet):
        raise NoFleet(target, f"{module_name}.{attribute or 'fleet'} is {type(found).__name__}")
    return found
