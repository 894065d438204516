"""A model that is called by its provider's SDK: what OpenAI's and Anthropic's have in common.

request ──▶ create(stream=True) ──events──▶ take ──▶ what the headers say of limits
                  └── ModelFailed, in the runtime's failure classes
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from techrevati.fleet.answers import Answer
from techrevati.fleet.feedback import Feedback, read
from techrevati.fleet.model_failures import ModelFailed, failed
from techrevati.fleet.sdks import NoProvider, Sdk, sendable


class SdkModel:
    """One model, streamed.

    Args:
        name: as the server knows it.
        client: an asynchronous client of the SDK of your own; else one is made on the first call, from `base_url` and
            `api_key` or the variables the SDK reads.
        label: what replies, failures and prices call it; ``provider:NAME``.
    """

    provider: ClassVar[str]
    client_class: ClassVar[str]

    def __init__(
        self,
        name: str,
        client: Any = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        label: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._label, self._clock = name, label or f"{self.provider}:{name}", clock
        self._sdk = Sdk(self.provider, self.client_class, client, base_url=base_url, api_key=api_key)

    async def _stream(
        self,
        answer: Answer,
        create: Callable[[Any], Callable[..., Any]],
        sent: Mapping[str, Any],
        take: Callable[[Any], None],
    ) -> Feedback:
        """Send what `create` of the SDK's client takes, and take each event of the answer.

        Raises:
            ModelFailed: with its failure class, and whether text had been delivered.
            NoProvider: no SDK, or no key.
        """
        await self._sdk.load()
        try:
            method = create(self._sdk.client)
            stream = await method(model=self._name, stream=True, **sendable(method, sent))
            async with stream:
                async for event in stream:
                    take(event)
        except NoProvider:
            raise
        except Exception as error:
            raise failed(self._sdk.module, self._label, error, spoke=answer.spoke, now=self._clock()) from error
        return read(stream.response.headers, self._clock())

    def _cut(self, answer: Answer) -> ModelFailed:
        """Say that the stream ended before the answer did."""
        return ModelFailed(self._label, "dependency_failed", "its stream was cut", spoke=answer.spoke)

    async def close(self) -> None:
        """Hang up; the next call connects anew."""
        await self._sdk.close()
