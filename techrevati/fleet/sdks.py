"""The providers' own SDKs: imported, and their clients made, on the first call that needs them.

Keys and base URLs come from the variables that the SDKs themselves read (OPENAI_API_KEY, OPENAI_BASE_URL,
ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL) unless they are given.  Retries are the runtime's: the SDKs' own are off, so
that a turn is not waiting where nobody sees it.
"""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from techrevati.runtime.errors import TechrevatiError


class NoProvider(TechrevatiError):
    """A provider's SDK is not installed, or it has no key."""

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(provider, reason)
        self.provider, self.reason = provider, reason

    def __str__(self) -> str:
        return (
            f"{self.provider} cannot be called: {self.reason}; fix: pip install "
            f"'techrevati-workers[{self.provider}]' and set {self.provider.upper()}_API_KEY"
        )


class Sdk:
    """One SDK and one client of it, for one event loop."""

    def __init__(self, provider: str, client_class: str, client: Any = None, **given: Any) -> None:
        self._provider, self._class = provider, client_class
        self._client, self._given = client, {name: value for name, value in given.items() if value is not None}
        self._module: Any = None

    @property
    def module(self) -> Any:
        """The SDK's module, for its errors.

        Raises:
            NoProvider: it is not installed.
        """
        if self._module is None:
            try:
                self._module = importlib.import_module(self._provider)
            except ImportError:
                raise NoProvider(self._provider, "its SDK is not installed") from None
        return self._module

    async def load(self) -> None:
        """Import the SDK without holding up the event loop: it takes a second or two, once.

        Raises:
            NoProvider: it is not installed.
        """
        if self._module is None and self._client is None:
            await asyncio.to_thread(lambda: self.module)

    @property
    def client(self) -> Any:
        """The client.

        Raises:
            NoProvider: the SDK is not installed, or finds no key.
        """
        if self._client is None:
            make = getattr(self.module, self._class)
            try:
                self._client = make(max_retries=0, **self._given)
            except Exception as error:  # each SDK has an error of its own for a missing key
                raise NoProvider(self._provider, str(error).splitlines()[0]) from error
        return self._client

    async def close(self) -> None:
        """Hang up, if a client was made; the next call makes another."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def sendable(create: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options as an SDK's method takes them; what it has no name for travels in the body all the same.

    Which options a method names differs from release to release, and compatible servers have their own.
    """
    named = inspect.signature(create).parameters
    known = {name: value for name, value in options.items() if name in named}
    more = {name: value for name, value in options.items() if name not in named}
    return {**known, "extra_body": {**more, **(known.get("extra_body") or {})}} if more else known
