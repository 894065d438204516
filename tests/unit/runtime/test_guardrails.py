"""Guardrails, plain and asynchronous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from techrevati.runtime import AllowAllGuardrail, Guardrail, GuardrailOutcome, GuardrailViolatedError
from techrevati.runtime.guardrails import (
    AsyncGuardrail,
    arun_post_checks,
    arun_pre_checks,
    run_post_checks,
    run_pre_checks,
)


@dataclass
class NoSecrets(Guardrail):
    secret: str
    name: str = "no_secrets"

    def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(tool != self.secret, "named the secret")

    def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(self.secret not in str(value))


class Slow:
    name = "slow"

    async def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(tool != "bad")

    async def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(value != "bad", "bad value")


class Nameless:
    def __init__(self) -> None:
        self.asked = 0

    def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
        self.asked += 1
        return GuardrailOutcome(False)

    def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
        self.asked += 1
        return GuardrailOutcome(False)


def test_the_first_refusal_ends_it() -> None:
    never = Nameless()
    with pytest.raises(GuardrailViolatedError) as caught:
        run_pre_checks([AllowAllGuardrail(), NoSecrets("key"), never], role="r", tool="key")  # type: ignore[list-item]
    error = caught.value
    assert (error.guardrail, error.role, error.tool, error.stage) == ("no_secrets", "r", "key", "pre")
    assert error.outcome.reason == "named the secret"
    assert str(error) == "pre guardrail 'no_secrets' blocked tool 'key' for role 'r': named the secret"
    assert never.asked == 0
    with pytest.raises(GuardrailViolatedError, match=r"post guardrail 'Nameless'.*no reason provided"):
        run_post_checks([NoSecrets("key"), never], "fine", role="r", tool="t")  # type: ignore[list-item]
    run_post_checks([AllowAllGuardrail(), NoSecrets("key")], "fine", role="r", tool="t")


def test_protocol_and_names() -> None:
    assert isinstance(AllowAllGuardrail(), Guardrail)
    assert AllowAllGuardrail().name == "allow_all"
    assert AllowAllGuardrail() == AllowAllGuardrail("allow_all")


async def test_async_guardrails_are_awaited_between_plain_ones() -> None:
    mixed: list[Guardrail | AsyncGuardrail] = [AllowAllGuardrail(), Slow(), NoSecrets("key")]
    await arun_pre_checks(mixed, role="r", tool="t")
    await arun_post_checks(mixed, "fine", role="r", tool="t")
    with pytest.raises(GuardrailViolatedError, match="'slow'"):
        await arun_pre_checks(mixed, role="r", tool="bad")
    with pytest.raises(GuardrailViolatedError, match="bad value"):
        await arun_post_checks(mixed, "bad", role="r", tool="t")
    with pytest.raises(GuardrailViolatedError, match="no_secrets"):
        await arun_post_checks(mixed, "the key", role="r", tool="t")


def test_sync_checks_refuse_async_guardrails() -> None:
    with pytest.raises(TypeError, match="guardrail 'slow' is asynchronous"):
        run_pre_checks([Slow()], role="r", tool="t")
    with pytest.raises(TypeError, match="guardrail 'slow' is asynchronous"):
        run_post_checks([Slow()], 1, role="r", tool="t")
