"""What every script keeps to (protocol 1, 13): held by reading the sources."""

import re
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest

from techrevati.store import scripts
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore

LUA = files("techrevati.store").joinpath("lua")
FRAGMENTS = tuple(sorted(e.name[:-4] for e in LUA.iterdir() if e.name.startswith("_") and e.name.endswith(".lua")))

# Command -> the options of it that are newer than Redis 6.2 are not used; all of these are as old as that.
ALLOWED = {
    *("DEL", "EXISTS", "GET", "SET", "PERSIST", "PEXPIRE", "PUBLISH", "TIME", "COPY", "RENAME", "UNLINK"),
    *("HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSET", "HSETNX", "HVALS"),
    *("LLEN", "LPOP", "LPUSH", "LRANGE", "LREM", "LTRIM", "RPUSH"),
    *("SADD", "SCARD", "SMEMBERS", "SREM"),
    "UNLINK",
    *("XADD", "XRANGE", "XTRIM"),
    *("ZADD", "ZCARD", "ZCOUNT", "ZINCRBY", "ZPOPMIN", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZREMRANGEBYSCORE", "ZSCORE"),
}
# The names of a script's own keys: by the functions of PartitionKeys that make them.
KINDS = {"msgs": "messages", "ckpt": "checkpoints"}
OF_PARTITION = {"due", "routes", "deadlines", "runs", "ended", "roles", "sweeper", "weights", "stop", "clock", "drops"}


def source(name: str) -> str:
    return LUA.joinpath(f"{name}.lua").read_text("utf-8")


def every() -> list[str]:
    return [*FRAGMENTS, *scripts.names()]


def of_partition(name: str) -> bool:
    """Say if a script or fragment works on a partition; the others have a key of their own and a room of their own."""
    return name in (
        "_unit",
        "_homes",
        "_above",
        "_finish",
        "_grant",
        "_start",
        "_drop",
    ) or "-- include: _unit" in source(name)


def twin(name: str) -> Callable[..., Any]:
    """Give the function that a script's contract names."""
    told = re.search(r"^-- Twin: (techrevati\.store\.[a-z_.]+)\.(\w+)$", source(name), re.MULTILINE)
    assert told is not None and told[2] == name, "a script names its twin"
    module = vars(import_module(told[1]))
    made: Callable[..., Any] = module.get("SCRIPTS", module)[name]
    return made


@pytest.mark.parametrize("name", every())
def test_only_commands_of_redis_6_2(name: str) -> None:
    used = set(re.findall(r"call\(\s*'([A-Z]+)'", source(name)))
    assert used <= ALLOWED
    assert not re.findall(r"call\(\s*[^')\s]", source(name).replace("call, max", "")), "a command is a literal"


@pytest.mark.parametrize("name", every())
def test_no_option_newer_than_redis_6_2(name: str) -> None:
    text = source(name)
    for line in text.splitlines():
        assert not re.search(r"'PEXPIRE'.*'(NX|XX|GT|LT)'", line)
        assert not ("'SET'" in line and ("'NX'" in line and "'GET'" in line))
        assert not re.search(r"'[LR]POP', K\([^)]*\),", line), "a count is as old, but nothing needs it"


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_opens_with_its_contract(name: str) -> None:
    text = source(name)
    head = text[: text.index("local ")]
    assert head.startswith(f"-- {name}: ")
    assert twin(name).__module__ in head
    assert ("-- KEYS[1]  clock      the partition\n" if of_partition(name) else "-- KEYS[1]  ") in head
    assert "-- ARGV[1]  protocol\n-- ARGV[2]  now        " in head
    assert not of_partition(name) or "-- ARGV[2]  now        us; '' reads the server's clock\n" in head
    assert "-- returns  " in head
    told = [int(number) for number in re.findall(r"ARGV\[(\d+)", head)]
    used = [int(number) for number in re.findall(r"ARGV\[(\d+)\]", text)]
    assert max(used, default=2) <= max(told)
    assert "KEYS[2]" not in text


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_has_a_twin_with_as_many_arguments(name: str) -> None:
    head = source(name).split("local ", 1)[0]
    told = [int(number) for number in re.findall(r"ARGV\[(\d+)", head)]
    arguments = twin(name).__code__.co_argcount - 1
    open_ended = bool(twin(name).__code__.co_flags & 0x04)
    assert open_ended == ("...]" in head)
    named = next((int(n) for n in re.findall(r"ARGV\[(\d+)\.\.\.", head)), max(told) + 1) - 1
    assert arguments == named - 2


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_stays_small_enough_to_be_read(name: str) -> None:
    assert len(source(name).splitlines()) <= 220
    assert len(scripts.script(name).source) < 32_000
    assert all(len(line) <= 120 for line in source(name).splitlines())


@pytest.mark.parametrize("name", every())
def test_lua_never_decodes_json(name: str) -> None:
    assert "cjson" not in source(name)


def test_names_in_lua_are_those_of_the_keys_module() -> None:
    keys = PartitionKeys("f", 3)
    kinds, whole = set[str](), set[str]()
    for name in filter(of_partition, every()):
        text = source(name)
        kinds |= set(re.findall(r"\bK\('(\w+)'", text))
        for group in re.findall(r"ipairs\(\{ ([^}]*) \}\)", text):
            kinds |= set(re.findall(r"'(\w+)'", group))
        kinds |= set(re.findall(r"'(\w+)'", "".join(re.findall(r"local kept = \{([^}]*)\}", text))))
        whole |= set(re.findall(r"'(\w+):' \.\. TAG", text))
    assert {field.name for field in fields(keys)} == {"fleet", "partition"}
    for kind in kinds:
        made = getattr(keys, KINDS.get(kind, kind))
        names = ("t", "x") if kind in ("thread", "msgs", "ckpt", "line", "runsof") else ("x",)
        assert made(*names) == f"{kind}:{{f:3}}:{':'.join(names)}"
    for kind in whole:
        assert getattr(keys, kind) == f"{kind}:{{f:3}}"
    assert whole <= OF_PARTITION
    assert keys.clock == "clock:{f:3}"


def test_every_script_compiles_on_every_server(server: EmbeddedRedis) -> None:
    with SyncStore(server.url) as store:
        for name in scripts.names():
            assert store.command("SCRIPT", "LOAD", scripts.script(name).source) == scripts.script(name).sha
