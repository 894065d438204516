"""The benchmarks run: tiny counts, the real scripts, their results checked; no figure is judged here."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import chain, report
from tests.benchmarks.chain import Begun, Kill
from tests.benchmarks.harness import ROOT


def run(script: str, target: Path, *options: str) -> Any:
    """Run one benchmark as a user would and give its record; a bar may fail at such counts."""
    environment = {name: value for name, value in os.environ.items() if name != "BENCH_REDIS_URL"}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{script}", *options, "--json", str(target)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode in (0, 1) and target.exists(), f"{done.stdout}\n{done.stderr}"
    return json.loads(target.read_text("utf-8"))


def test_speed_is_measured_on_both_sides_and_results_are_checked(tmp_path: Path) -> None:
    variants = ("tuned-chain", "ours-50")
    record = run("speed", tmp_path / "out.json", "--rounds=1", "--sessions=10", "--turns=2", "--only", *variants)
    assert [sample["variant"] for sample in record["samples"]] == list(variants)
    for sample in record["samples"]:
        assert sample["turns"] == 20
        assert sample["rate"] > 0
        assert sample["workers"] > 0


def test_latency_is_sampled_of_every_system(tmp_path: Path) -> None:
    pytest.importorskip("taskiq_redis", reason="needs the extra 'bench'")
    record = run("latency", tmp_path / "out.json", "--samples=3", "--gap=0.001", "--children=1")
    assert {"celery prefork", "taskiq list", "ours"} == set(record["ms"])
    assert all(len(values) == 3 and min(values) > 0 for values in record["ms"].values())


def test_checkpoints_are_measured_beside_the_same_bytes_and_read_back(tmp_path: Path) -> None:
    record = run("saver", tmp_path / "out.json", "--rounds=3", "--turns=30")
    kinds = ("a turn", "unrelated words", "unrelated random", "first put")
    assert set(record["us"]) == {f"{kind}, {size}" for kind in kinds for size in ("10 KiB", "200 KiB")}
    for took in record["us"].values():
        assert set(took) == {"put", "SET", "after", "get", "cold get", "GET"}
        assert all(len(values) == 3 and min(values) > 0 for values in took.values())
    assert len(record["young"]) == len(record["old"]) == 10


def links_of(session: str, turns: int) -> Sequence[str]:
    links = [chain.link("", session, 1)]
    for number in range(2, turns + 1):
        links.append(chain.link(links[-1], session, number))
    return links


def test_only_a_chain_with_every_link_in_order_is_whole() -> None:
    links = links_of("s", 3)
    assert chain.is_whole("s", links, 3)
    assert not chain.is_whole("s", links[:2], 3)
    assert not chain.is_whole("s", [links[0], links[2], links[1]], 3)
    assert not chain.is_whole("s", [*links, links[2]], 3)
    assert not chain.is_whole("other", links, 3)


def test_a_turn_that_begins_after_its_successor_ran_again() -> None:
    links = links_of("s", 2)
    honest = [Begun("s", 1, 7, 1.0), Begun("s", 1, 8, 2.0), Begun("s", 2, 8, 3.0)]
    assert chain.judge({"s": links}, honest, 2) == chain.Verdict(1, 1, 2, 0, 0, 1)
    again = [*honest, Begun("s", 1, 7, 4.0)]
    assert chain.judge({"s": links}, again, 2).reran == 1
    assert chain.judge({"s": [*links, links[1]]}, honest, 2).doubled == 1


def test_recovery_is_counted_from_the_kill_to_the_second_begin() -> None:
    begun = [
        Begun("s", 1, 7, 1.0),
        Begun("s", 1, 8, 17.5),
        Begun("t", 1, 8, 1.5),
        Begun("t", 2, 8, 9.0),
    ]
    assert chain.recoveries([Kill(frozenset({7}), 2.0)], begun) == [15.5]


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [report.percentile(values, q) for q in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]


def test_ratios_are_taken_within_a_round() -> None:
    assert report.pairwise([10.0, 2.0, 9.0], [5.0, 1.0, 3.0]) == report.Spread(2.0, 2.0, 3.0)


def test_gates_are_measured_beside_what_others_do(tmp_path: Path) -> None:
    pytest.importorskip("purgatory", reason="needs the extra 'bench'")
    record = run("gates", tmp_path / "out.json", "--rounds=2", "--calls=5")
    assert len(record["samples"]) >= 15
    assert all(len(taken) == 2 and min(taken) > 0 for taken in record["samples"].values())
    assert record["round_trips"]["gate_admit + gate_settle: 3 buckets, slots, breaker, refund"] >= 2
    assert record["round_trips"]["gate.check(): refuse while open"] == 0
