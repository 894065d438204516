"""Gates, budgets and models of the acceptance tests that are about them; ``ACCEPTANCE_LIMITS=1`` declares them."""

import asyncio
import os
import time
from dataclasses import replace

from techrevati.fleet.failures import Retry
from techrevati.fleet.fleet import Fleet
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.openai_model import OpenAIModel
from techrevati.fleet.outcome import Outcome
from techrevati.fleet.sync_turn import SyncTurn
from techrevati.fleet.turn import Turn
from techrevati.runtime.usage_tracking import ModelPricing, register_pricing
from techrevati.store.budgets import Limit
from techrevati.store.budgets import budget as reserving
from techrevati.store.gates import BreakerSpec, BucketSpec
from tests.acceptance.diary import home, tell

BUDGET = 1_000_000
"""Micro-dollars of the tenant; a call of the model "costly" is estimated at 60,000 or so and costs 55,000."""
RATION = BucketSpec("rpm", 3, 5.0)


class Told:
    """A model that tells who called it when, and fails, or hangs, until the test mends it."""

    def __init__(
        self, name: str, *, seconds: float = 0.0, cost: int = 0, fails: bool = False, hangs: bool = False
    ) -> None:
        self.name, self.seconds, self.cost, self.fails, self.hangs = name, seconds, cost, fails, hangs

    async def complete(self, request: ModelRequest) -> ModelReply:
        tell(f"called {self.name} {os.getpid()} {time.time()}")
        hangs = self.hangs and not (home() / f"gate-{self.name}-opened").exists()
        await asyncio.sleep(60 if hangs else self.seconds)
        if self.fails and not (home() / "gate-shaky-mended").exists():
            raise ModelFailed(self.name, "llm_error", "it is broken", 500)
        return ModelReply("so", 5, 50, self.cost, self.name)


async def dial(turn: Turn) -> Outcome:
    """Call a model, and tell when it answered."""
    reply = await turn.model(turn.input["model"], "hello", max_tokens=50, timeout=turn.input.get("timeout", 120))
    tell(f"dialed {turn.run_id} {os.getpid()} {time.time()}")
    return turn.complete({"text": reply.text, "failures": turn.failures})


def plain_dial(turn: SyncTurn) -> str:
    """The same, by a plain function."""
    return turn.model(turn.input["model"], "hello", max_tokens=50).text


def declare_limits(fleet: Fleet, role: str) -> None:
    """Declare what the tests of gates and budgets need."""
    fleet.agent(role, name=f"dial.{role}", retry=Retry(tries=1), timeout=30)(dial)
    fleet.agent(role, name=f"plain_dial.{role}", retry=Retry(tries=1), timeout=30)(plain_dial)
    register_pricing("costly", ModelPricing(1000.0, 1000.0))
    register_pricing("held", ModelPricing(1000.0, 1000.0))
    # What a reservation outlives its call by: a second here, not a quarter of a minute.
    reserving.MARGIN = 1.0  # type: ignore[attr-defined]
    for name, model in {
        "rationed": Told("rationed"),
        "narrow": Told("narrow"),
        "shaky": Told("shaky", fails=True),
        "costly": Told("costly", seconds=0.3, cost=55_000),
        "held": Told("held", cost=7_000, hangs=True),
    }.items():
        fleet.model(name, model)
    fleet.model("remote", OpenAIModel("m", base_url=f"{os.environ.get('MODEL_SERVER')}/v1", api_key="k"))
    fleet.gate("rationed", buckets={"rpm": RATION})
    fleet.gate("narrow", buckets={"rpm": BucketSpec("rpm", 1, 0.5)})
    fleet.gate("shaky", breaker=BreakerSpec(failure_threshold=3, cooldown=8.0, pace=5.0))
    fleet.gate("remote", rpm=6000)
    fleet.gate("held", concurrency=1)
    fleet.gates["held"] = replace(fleet.gates["held"], margin=0.5)
    fleet.budget(tenant=Limit(BUDGET))
