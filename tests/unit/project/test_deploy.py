"""Compose and Kubernetes files run what exists, with settings that exist, and agree with each other."""

import json
import re
import shlex
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis
import yaml

import deploy.stats
from deploy.alive import is_alive
from examples.newsroom import fleet
from techrevati.fleet.coordinator import stats_key
from techrevati.fleet.settings import load_settings
from techrevati.store.embedded import EmbeddedRedis
from tests.unit.project.commands import check
from tests.unit.project.documents import ROOT

EXTRAS = {"TECHREVATI_FLEET", "TECHREVATI_DEMO_MODEL", "TECHREVATI_DEMO_LATENCY", "TECHREVATI_OTEL_FILE"}
CELERYS = {"REMAP_SIGTERM"}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
MANIFESTS = {
    path.relative_to(ROOT).as_posix(): list(yaml.safe_load_all(path.read_text("utf-8")))
    for folder in ("kubernetes", "keda")
    for path in sorted((ROOT / "deploy" / folder).glob("*.yaml"))
}


def objects(kind: str) -> dict[str, Any]:
    return {o["metadata"]["name"]: o for found in MANIFESTS.values() for o in found if o["kind"] == kind}


def pod(name: str) -> Any:
    return objects("Deployment")[name]["spec"]["template"]["spec"]


def variables_of(name: str) -> dict[str, str]:
    """Give what a pod's container is told, its secret aside."""
    (container,) = pod(name)["containers"]
    told = dict(objects("ConfigMap")["newsroom"]["data"])
    return told | {one["name"]: one["value"] for one in container.get("env", ())}


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None, text
    return int(match[1])


def known(variables: Mapping[str, str]) -> None:
    """Have the real settings read the variables."""
    for name in variables:
        setting = name.removeprefix("TECHREVATI_").lower()
        assert name in EXTRAS | CELERYS or setting in type(load_settings()).model_fields, name
    given = {
        name.removeprefix("TECHREVATI_").lower(): value
        for name, value in variables.items()
        if name not in EXTRAS | CELERYS
    }
    load_settings(**given)


def test_compose_has_a_store_two_coordinators_and_every_role() -> None:
    assert set(COMPOSE["services"]) == {"valkey", "coordinator", *fleet.roles}
    assert COMPOSE["services"]["coordinator"]["deploy"]["replicas"] == 2
    store = shlex.split(COMPOSE["services"]["valkey"]["command"])
    assert store[store.index("--appendonly") + 1] == "yes"
    assert store[store.index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("name", OURS)
def test_compose_runs_commands_that_parse(name: str) -> None:
    check(shlex.split(OURS[name]["command"]))
    assert (ROOT / OURS[name]["build"]["dockerfile"]).is_file()
    assert OURS[name]["restart"] == "always"


@pytest.mark.parametrize("name", OURS)
def test_compose_sets_what_the_settings_know(name: str) -> None:
    known(OURS[name]["environment"])


def test_compose_gives_workers_more_time_than_their_drain() -> None:
    for role in fleet.roles:
        environment = OURS[role]["environment"]
        assert environment["REMAP_SIGTERM"] == "SIGQUIT"
        assert seconds(OURS[role]["stop_grace_period"]) >= float(environment["TECHREVATI_DRAIN_GRACE"]) + 10
        assert f"workers.{role}" in OURS[role]["command"]


def test_kubernetes_has_what_compose_has() -> None:
    assert {"coordinator", *fleet.roles} <= set(objects("Deployment"))
    assert objects("Deployment")["coordinator"]["spec"]["replicas"] == 2
    assert set(objects("PodDisruptionBudget")) == {"coordinator", *fleet.roles}
    image = objects("StatefulSet")["valkey"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == COMPOSE["services"]["valkey"]["image"]
    for name in OURS:
        (container,) = pod(name)["containers"]
        assert container["command"] == shlex.split(OURS[name]["command"])
        assert container["image"] == OURS[name]["image"]
        check(container["command"])
        known(variables_of(name))


def test_kubernetes_selects_what_it_labels() -> None:
    for name, deployment in objects("Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels == {"app": name}
    for name, budget in objects("PodDisruptionBudget").items():
        assert budget["spec"]["selector"]["matchLabels"] == {"app": name}
    for name, service in objects("Service").items():
        assert service["spec"]["selector"] == {"app": name}


def test_kubernetes_gives_workers_more_time_than_their_drain() -> None:
    for role in fleet.roles:
        told = variables_of(role)
        assert told["REMAP_SIGTERM"] == "SIGQUIT"
        assert pod(role)["terminationGracePeriodSeconds"] >= float(told["TECHREVATI_DRAIN_GRACE"]) + 10


def test_roles_differ_by_their_name_only() -> None:
    texts = {(ROOT / f"deploy/kubernetes/{role}.yaml").read_text("utf-8").replace(role, "ROLE") for role in fleet.roles}
    assert len(texts) == 1


def test_keda_reads_a_figure_that_is_published() -> None:
    (scaled,) = objects("ScaledObject").values()
    (trigger,) = scaled["spec"]["triggers"]
    role, figure = trigger["metadata"]["valueLocation"].split(".")
    assert scaled["spec"]["scaleTargetRef"]["name"] == role
    assert role in fleet.roles
    source = (ROOT / "techrevati/fleet/coordinator.py").read_text("utf-8")
    assert f'"{figure}": ' in source.partition("stats[role] = {")[2].partition("}")[0]


def test_the_image_holds_what_the_files_run() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
    assert re.search(r"^USER \d+$", text, re.MULTILINE)
    sent = (ROOT / ".dockerignore").read_text("utf-8")
    for name in ("techrevati", "examples", "workers", "deploy/*.py", "pyproject.toml"):
        assert f"!{name}\n" in sent


def test_the_collector_uses_what_it_defines() -> None:
    config = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text("utf-8"))
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= set(config[part])
    assert set(config["service"]["extensions"]) <= set(config["extensions"])


def test_a_host_is_alive_while_the_store_hears_from_it() -> None:
    worker = {"writer@here:7:ab": json.dumps({"host": "here", "until": 100.0})}
    assert is_alive("here", 99.0, worker, {})
    assert not is_alive("here", 101.0, worker, {})
    assert not is_alive("there", 99.0, worker, {})
    assert is_alive("here", 99.0, {}, {"here:8:cd": "100000000"})
    assert not is_alive("here", 101.0, {}, {"here:8:cd": "100000000"})


@pytest.fixture
def stats_url(private_redis: EmbeddedRedis) -> Iterator[str]:
    server = deploy.stats.serve(private_redis.url, "newsroom", port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://{socket.gethostbyname('localhost')}:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_figures_are_served_as_they_are_published(private_redis: EmbeddedRedis, stats_url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(stats_url)
    refused.value.close()
    with redis.Redis.from_url(private_redis.url) as client:
        client.hset(stats_key("newsroom"), "writer", json.dumps({"ready": 3}))
    with urllib.request.urlopen(stats_url) as reply:
        assert json.load(reply) == {"writer": {"ready": 3}}
