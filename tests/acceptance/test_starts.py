"""Starting once under any race, and sharing a pool fairly."""

import json
import subprocess
import sys

from tests.acceptance.agents import FLEET
from tests.acceptance.support import ROOT, Cluster

RACER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from techrevati.fleet.client import Client
client = Client(sys.argv[1], fleet=sys.argv[2])
client.cards()
print("ready", flush=True)
sys.stdin.readline()
def start(_):
    run = client.start("count.alpha", {"turns": 2}, idempotency_key="one", tenant="racer")
    return run.id, run.created
with ThreadPoolExecutor(13) as pool:
    print(json.dumps(list(pool.map(start, range(13)))))
"""


def test_racing_starts_with_one_key_make_one_run(cluster: Cluster) -> None:
    client = cluster.client()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, cluster.redis.url, FLEET],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    answers = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        out, _ = racer.communicate(timeout=30)
        answers += json.loads(out)
    assert len(answers) == 52
    assert len({run_id for run_id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert client.run(answers[0][0]).result(timeout=10) == [1, 2]
    assert len(client.list_runs(tenant="racer")) == 1
    again = client.start("count.alpha", {"turns": 2}, idempotency_key="one", tenant="racer")
    assert (again.id, again.created) == (answers[0][0], False)


def test_small_tenant_does_not_wait_behind_a_large_one(cluster: Cluster) -> None:
    client = cluster.client("fair")
    client.start_many([{"agent": "count.fair", "input": {}, "tenant": "large"} for _ in range(1000)])
    small = {
        run.id
        for run in client.start_many([{"agent": "count.fair", "input": {}, "tenant": "small"} for _ in range(10)])
    }
    mine = len(cluster.told("count "))
    cluster.worker("fair", "-c", "4")
    lines = cluster.wait_told("count ", timeout=60, count=mine + 1010)[mine:]
    order = [line.split()[1] for line in lines]
    last = max(order.index(run_id) for run_id in small)
    before = last - 9
    print(f"\nthe last of B's 10 sessions started after {before} of A's 1000")
    assert before < 50
