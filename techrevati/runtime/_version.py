"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("techrevati-workers")
    except PackageNotFoundError:
        return "0.0.0+local"


__version__ = _installed()
