"""`fleet.checkpoints(durability=…)` on real turns: what a session is told is safe is safe, or it is told it is not."""

import os
import signal

import pytest

from techrevati.fleet import Fleet, Outcome, Retry, Turn
from techrevati.runtime import UsageSnapshot
from techrevati.store.durability import Durability, DurabilityUnknown
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import StoreUnfit
from techrevati.store.saver import RedisSaver
from tests.integration.fleet.desk import desk
from tests.integration.store.test_durability import pair


def newsroom(name: str, durability: Durability) -> Fleet:
    fleet = Fleet(name)
    fleet.checkpoints(durability=durability.value)

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        async def work() -> str:
            return "so"

        told = []
        try:
            await turn.session.arun_turn(work, usage=UsageSnapshot(), idempotency_key=f"k{turn.number}")
        except (DurabilityUnknown, StoreUnfit) as error:
            told.append(str(error))
        return turn.complete(told) if turn.number == 3 else turn.continue_()

    return fleet


async def test_each_turns_checkpoint_is_on_the_replica_when_the_turn_commits(fleet_name: str) -> None:
    with pair() as (primary, replica):
        async with desk(newsroom(fleet_name, Durability.REPLICATED), primary.url) as at:
            run = await at.start()
            with RedisSaver(replica.url, fleet_name) as copy:
                for turns in (1, 2, 3):
                    await at.ticket(run)
                    record = await at.record(run)
                    assert len(copy.list(record.thread_id)) == turns
            assert (record.status, record.output) == ("completed", [])


async def test_a_replica_that_stopped_is_reported_to_the_turn_which_commits_all_the_same(fleet_name: str) -> None:
    with pair() as (primary, replica):
        async with desk(newsroom(fleet_name, Durability.REPLICATED), primary.url) as at:
            run = await at.start()
            await at.ticket(run)
            await at.ticket(run)
            assert replica.pid is not None
            os.kill(replica.pid, signal.SIGSTOP)
            try:
                record = await at.served(run)
            finally:
                os.kill(replica.pid, signal.SIGCONT)
            [told] = record.output
            assert record.status == "completed"
            assert "0 of 1 confirmed it within 1000 ms" in told and "INFO replication" in told
            with RedisSaver(primary.url, fleet_name) as saver:
                assert len(saver.list(record.thread_id)) == 3, "it is there: committed, not yet safe"


async def test_with_fsync_a_killed_server_has_every_turn_that_committed(fleet_name: str) -> None:
    with EmbeddedRedis(options={"appendfsync": "always"}) as private:
        async with desk(newsroom(fleet_name, Durability.FSYNC), private.url) as at:
            run = await at.start()
            for turns in (1, 2, 3):
                await at.ticket(run)
                private.restart(sig=signal.SIGKILL)
                record = await at.record(run)
                with RedisSaver(private.url, fleet_name) as saver:
                    assert len(saver.list(record.thread_id)) == turns
            assert (record.status, record.output) == ("completed", [])


@pytest.mark.parametrize("durability", [Durability.REPLICATED, Durability.FSYNC])
async def test_what_the_server_cannot_give_is_said_to_the_turn_with_the_fix(
    durability: Durability, fleet_name: str
) -> None:
    with EmbeddedRedis(options={"appendfsync": "no"}) as private:
        async with desk(newsroom(fleet_name, durability), private.url) as at:
            run = await at.start()
            for _ in range(3):
                await at.ticket(run)
            record = await at.record(run)
    assert "fix: " in record.output[0]
