"""What sessions tell the fleet's sinks, on real workers that die after having told it."""

from collections import Counter

from techrevati.runtime.agent_events import AgentEvent, AgentEventName
from techrevati.store.sinks import RedisEventSink, RedisUsageSink
from techrevati.store.sync import SyncStore
from tests.acceptance.agents import FLEET
from tests.acceptance.support import Cluster, eventually

SPENDING = {"ACCEPTANCE_SPENDING": "1"}


def test_a_turn_that_is_killed_after_it_told_its_costs_and_runs_again_counts_once(cluster: Cluster) -> None:
    first = cluster.worker("spenders", "-c", "4", env=SPENDING)
    client = cluster.client("spenders")
    run = client.start("spend.spenders", {"gate": "never"}, tenant="payer")
    with (
        SyncStore(cluster.redis.url) as store,
        RedisUsageSink(store, FLEET, tenant="payer") as usage,
        RedisEventSink(store, FLEET, tenant="payer") as events,
    ):
        eventually(lambda: usage.totals()["turns"] == 4, "both turns have told their costs")
        first.kill()
        cluster.worker("spenders", "-c", "4", env=SPENDING)
        assert run.result(timeout=20) == 2, "its second attempt"
        assert [line.split()[2:4] for line in cluster.told("spent")] == [["1", "1"], ["2", "1"], ["2", "2"]]

        # What another run tells comes behind all that this one told.
        other = client.start("spend.spenders", {"gate": "open"}, tenant="payer")
        cluster.open("open")
        other.result(timeout=20)
        eventually(lambda: usage.totals()["turns"] >= 8, "the other run has told its costs")
        assert usage.totals("dear") == {
            "turns": 8,
            "total_cost_usd": 8 * 1.1,
            "input_tokens": 8000,
            "output_tokens": 800,
        }
        kinds = Counter(event.event.value for event in eventually(lambda: ended(events), "both sessions end"))
        assert (kinds["agent.started"], kinds["agent.completed"]) == (2, 2), "whatever their turns and attempts"


def ended(sink: RedisEventSink) -> list[AgentEvent]:
    """Give all events, once both sessions have ended."""
    found = list(sink.replay())
    return found if sum(event.event is AgentEventName.AGENT_COMPLETED for event in found) >= 2 else []
