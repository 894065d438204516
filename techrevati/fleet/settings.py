"""Everything a process reads from its environment, once."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from techrevati.runtime.errors import TechrevatiError


class BadSettings(TechrevatiError):
    """A setting has a value it cannot have."""

    def __init__(self, problems: str) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return f"settings are refused: {self.problems}"


class Settings(BaseSettings):
    """Settings of one process; each is read from ``TECHREVATI_<NAME>``.

    Times are seconds.  The defaults are right for a fleet of LLM agents whose turns take seconds.
    """

    model_config = SettingsConfigDict(env_prefix="TECHREVATI_", frozen=True, extra="ignore")

    redis_url: Annotated[
        str, Field(description="the store, redis://, unix:// or sentinel://; also the broker unless broker_url is set")
    ] = "redis://localhost:6379/0"
    broker_url: Annotated[str, Field(description="redis://, unix://, sentinel:// or amqp://; empty: the store")] = ""
    partitions: Annotated[int, Field(ge=1, le=4096, description="hash slots of a new fleet; kept for ever")] = 4
    max_payload: Annotated[int, Field(ge=1024, description="bytes of an input, a message, a state or an output")] = (
        1024 * 1024
    )

    lease_ttl: Annotated[float, Field(gt=0, description="a dead worker's turn runs again after this")] = 15.0
    lease_renewal: Annotated[float, Field(gt=0, description="leases are renewed this often")] = 5.0
    loop_stall: Annotated[float, Field(gt=0, description="an event loop silent for this long loses its leases")] = 60.0
    sweep_interval: Annotated[float, Field(gt=0, description="the sweeper looks at least this often")] = 0.5
    partition_lease: Annotated[float, Field(gt=0, description="a dead coordinator is replaced after this")] = 5.0
    ticket_patience: Annotated[
        float, Field(gt=0, description="ready work unclaimed for this long gets new tickets")
    ] = 1.0
    heartbeat: Annotated[float, Field(gt=0, description="workers say they live this often; gone after three")] = 5.0

    concurrency: Annotated[int, Field(ge=1, description="turns one worker process holds")] = 500
    turns_per_ticket: Annotated[int, Field(ge=1, description="turns one Celery task may run while there is work")] = 1
    sync_threads: Annotated[int, Field(ge=1, description="threads for agents that are plain functions")] = 32
    drain_grace: Annotated[float, Field(ge=0, description="a shutdown waits this long for turns to end")] = 30.0
    cancel_grace: Annotated[float, Field(ge=0, description="a cancelled turn may wind up this long")] = 10.0
    consumer_stall: Annotated[
        float, Field(gt=0, description="ready work, free places and no ticket for this long: consume anew")
    ] = 10.0
    park_after: Annotated[float, Field(ge=0, description="a longer wait inside a turn gives its place back")] = 1.0

    cache_threads: Annotated[int, Field(ge=0, description="threads a worker remembers between their turns")] = 2000
    full_every: Annotated[int, Field(ge=1, description="turns between two full states")] = 16
    keep_checkpoints: Annotated[int, Field(ge=1, description="versions of a thread one can go back to")] = 100
    delta_interval: Annotated[float, Field(gt=0, description="text deltas travel this often")] = 0.05
    hop_limit: Annotated[int, Field(ge=1, description="handoffs of one run")] = 50
    ping_pong_limit: Annotated[int, Field(ge=1, description="direct returns between the same two roles in a row")] = 20

    remote_control: Annotated[bool, Field(description="let `celery inspect` and `control` reach workers")] = False
    otel: Annotated[bool, Field(description="instrument Celery and export by the OTEL_* variables")] = False
    log_level: Annotated[str, Field(description="of this project's own logs")] = "INFO"
    log_json: Annotated[bool, Field(description="one JSON object a line instead of text")] = False

    @property
    def broker(self) -> str:
        return self.broker_url or self.redis_url


def load_settings(**given: Any) -> Settings:
    """Read the settings; arguments win over the environment.

    Raises:
        BadSettings: naming each variable and what is wrong with it.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"TECHREVATI_{str(one['loc'][0]).upper()}={one['input']!r}: {one['msg']}" for one in error.errors()
        )
        raise BadSettings(problems) from None


def seconds(value: float | timedelta, what: str) -> float:
    """Give a duration as seconds; refuse one below zero."""
    result = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= result < 10**10:
        raise ValueError(f"{what}={value!r} is refused: give seconds or a timedelta from 0 up")
    return result
