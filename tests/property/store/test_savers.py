"""The saver scripts and their twin, side by side; deltas; sealed bytes; JSON texts."""

import copy
import itertools
import json
import math
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import pairs
from techrevati.store.saver import calls, json_text, record
from techrevati.store.saver.delta import Delta, apply, apply_all, common_prefix, common_suffix, diff
from techrevati.store.saver.names import SaverKeys
from techrevati.store.saver.record import View, texts_of
from techrevati.store.sealing import KeyRing, SealBroken, Sealer, UnknownKey, WrongKey
from techrevati.store.sync import SyncStore
from techrevati.store.twin.savers import Line, speak
from tests.property.store.conftest import profile
from tests.property.store.worlds import differences

S = 1_000_000
BEGIN = 1_700_000_000 * S
KEYS = SaverKeys("twins", "acme", "essay 42")
names = st.sampled_from(("", "k1", "k 2"))
nth = st.integers(0, 30)


def picture(store: SyncStore) -> Line:
    """Read a thread's checkpoints from Redis."""
    head = pairs(store.command("HGETALL", KEYS.clock))
    keyed = pairs(store.command("ZRANGE", f"{KEYS.clock}:keys", 0, -1, "WITHSCORES"))
    claims = {}
    for key, text in pairs(store.command("HGETALL", f"{KEYS.clock}:claims")).items():
        token, expires, owner = text.split(":", 2)
        claims[key] = int(token), int(expires), owner
    return Line(
        clock=int(head.get("us", 0)),
        last=int(head.get("n", 0)),
        last_id=head.get("id", ""),
        first=int(head.get("first", 1)),
        token=int(head.get("token", 0)),
        records={int(name): text for name, text in head.items() if name.isdigit()},
        ids={name[1:]: int(number) for name, number in head.items() if name[0] == "i" and name != "id"},
        bodies={name[1:]: body for name, body in head.items() if name[0] == "b"},
        keyed={name: int(number) for name, number in keyed.items()},
        claims=claims,
    )


class BothLines(RuleBasedStateMachine):
    """One thread's checkpoints on Redis, and the same in memory."""

    def __init__(self, store: SyncStore, clock: list[int]) -> None:
        super().__init__()
        self.store, self.clock, self.now = store, clock, BEGIN
        store.redis.flushall()
        self.twin = Line()
        self.ids = itertools.count(1)
        self.sent: list[Call[Any]] = []
        self.granted: list[tuple[str, int]] = []

    def say(self, call: Call[Any], *, again: bool = False) -> list[Any]:
        self.clock[0] = self.now
        theirs = self.store.run(replace(call, parse=lambda reply: list(reply), binary=False))
        mine = speak(self.twin, call, self.now)
        assert [str(x) for x in theirs] == [str(x) for x in mine], f"{call.script}{tuple(call.args)}"
        real = picture(self.store)
        assert real == self.twin, "\n".join(differences(real, self.twin, "redis", "twin"))
        if not again:
            self.sent.append(call)
        return mine

    def known(self, n: int) -> str:
        ids = list(self.twin.ids)
        return ids[-1 - n % len(ids)] if ids and n < 25 else "unknown"

    @rule(
        on=st.sampled_from(("whole", "last", "last", "last", "old")), key=names, keep=st.sampled_from((0, 0, 3)), n=nth
    )
    def put(self, on: str, key: str, keep: int, n: int) -> None:
        last = self.twin.last_id
        after = {"whole": "", "last": last, "old": self.known(n)}[on]
        name = f"c{next(self.ids)}"
        base = self.twin.base(self.twin.last) if after else None
        body = b"x" * (n * 1000), name.encode()
        text = record.head(name, base, sum(map(len, body)))
        self.say(calls.put(KEYS, id=name, after=after, record=text, body=body, key=key, keep=keep))

    @rule(key=names, owner=st.sampled_from(("a", "b:1")), lease=st.sampled_from((1, 10 * S)))
    def claim(self, key: str, owner: str, lease: int) -> None:
        reply = self.say(calls.claim(KEYS, key, owner, lease, 0))
        if reply[0] == 1:
            assert all(token < reply[2] for _key, token in self.granted)
            self.granted.append((key, reply[2]))

    @precondition(lambda self: self.granted)
    @rule(n=nth)
    def put_claimed(self, n: int) -> None:
        key, token = self.granted[-1 - n % len(self.granted)]
        held = self.twin.claims.get(key)
        name = f"c{next(self.ids)}"
        text = record.head(name, None, 1)
        call = calls.put(KEYS, id=name, after="", record=text, body=(b"y",), key=key, token=token)
        assert (self.say(call)[0] == 1) == (held is not None and held[0] == token)

    @precondition(lambda self: self.granted)
    @rule(n=nth)
    def release(self, n: int) -> None:
        self.say(calls.release(KEYS, *self.granted[-1 - n % len(self.granted)]))

    @rule(by=st.sampled_from(("last", "id", "key")), key=names, n=nth, have=nth)
    def get(self, by: str, key: str, n: int, have: int) -> None:
        value = {"last": "", "id": self.known(n), "key": key}[by]
        self.say(calls.get(KEYS, by, value, self.known(have) if have % 2 else ""))

    @rule(n=nth)
    def squeeze(self, n: int) -> None:
        self.say(calls.squeeze(KEYS, self.known(n), b"z"))

    @rule(n=nth, last=st.booleans(), limit=st.sampled_from((1, 3, 128)))
    def page(self, n: int, last: bool, limit: int) -> None:
        self.say(calls.page(KEYS, "" if last else self.known(n), limit))

    @precondition(lambda self: self.twin.last > 5)
    @rule()
    def delete(self) -> None:
        self.say(calls.delete(KEYS, 60_000))

    @rule(seconds=st.sampled_from((0.001, 0.02, 11.0, -30.0)))
    def pass_time(self, seconds: float) -> None:
        self.now += round(seconds * S)

    @precondition(lambda self: self.sent)
    @rule(n=nth)
    def send_again(self, n: int) -> None:
        """A reply was lost: a put that is there changes nothing but the clock."""
        call = self.sent[-1 - n % len(self.sent)]
        before, known = copy.deepcopy(self.twin), call.args[0] in self.twin.ids
        reply = self.say(call, again=True)
        if call.script == "saver_put" and known:
            before.clock, before.bodies = self.twin.clock, self.twin.bodies  # as big again as it was put
            assert before == self.twin
        if call.script == "saver_claim" and reply[0] == 1:
            self.granted.append((str(call.args[0]), reply[2]))


def test_saver_scripts_and_twin_say_and_do_the_same(server: EmbeddedRedis) -> None:
    clock = [BEGIN]
    with SyncStore(server.url, now_us=lambda: clock[0]) as store:
        run_state_machine_as_test(lambda: BothLines(store, clock), settings=profile())  # type: ignore[arg-type]


# Deltas.

texts = st.dictionaries(
    st.sampled_from(("a", "b", "c", "d")),
    st.lists(st.sampled_from((b"0123456789" * 30, b"abc", b"xyz" * 100)), max_size=5).map(b"".join),
)


@given(texts, texts)
def test_a_delta_gives_back_the_very_texts_in_their_order(old: dict[str, bytes], new: dict[str, bytes]) -> None:
    delta = diff(old, new)
    if delta is not None:
        assert list(apply(old, delta).items()) == list(new.items())
    else:
        assert [key for key in old if key in new] != list(new)[: len(set(old) & set(new))]


@given(texts, st.lists(texts, max_size=6))
def test_many_deltas_at_once_are_as_one_after_the_other(first: dict[str, bytes], later: list[dict[str, bytes]]) -> None:
    before, deltas = first, list[Delta]()
    for after in later:
        if (delta := diff(before, after)) is not None:
            deltas.append(delta)
            before = after
    assert list(apply_all(first, deltas).items()) == list(before.items())


def shared(one: bytes, other: bytes) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@given(st.binary(max_size=200), st.binary(max_size=40), st.binary(max_size=40))
def test_what_two_texts_share_is_all_they_share(front: bytes, one: bytes, other: bytes) -> None:
    a, b = front + one, front + other
    assert shared(a, b) - 64 <= common_prefix(a, b) <= shared(a, b)
    a, b = one + front, other + front
    assert shared(a[::-1], b[::-1]) - 64 <= common_suffix(a, b, min(len(a), len(b))) <= shared(a[::-1], b[::-1])


# JSON.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=20,
)
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly


@calm
@given(values)
def test_a_value_reads_as_json_would_read_it(value: Any) -> None:
    text, copied = json_text.encode(value)
    expected = json.loads(json.dumps(value))
    assert json.loads(text) == json_text.decode(text) == expected
    assert json.dumps(json_text.decode(text)) == json.dumps(expected)
    assert json.dumps(copied) == json.dumps(expected)


floats = st.floats() | st.sampled_from((math.nan, math.inf, -math.inf, 203.0, -0.0))


@calm
@given(st.lists(floats | st.integers() | st.text() | st.none(), max_size=80), st.integers(0, 300))
def test_numbers_that_json_has_no_words_for_are_kept_wherever_they_stand(numbers: list[Any], length: int) -> None:
    value = {"text": "\u02c0" * length, "numbers": numbers}
    text, _copied = json_text.encode(value)
    assert json.dumps(json_text.decode(text)) == json.dumps(value)


plain_states = st.dictionaries(st.text(max_size=3), st.lists(st.text(max_size=9) | st.floats(), max_size=9), max_size=4)


@calm
@given(plain_states, plain_states)
def test_a_checkpoint_is_packed_and_unpacked_whole_or_as_changes(old: Any, new: Any) -> None:
    before, after = texts_of(old).texts, texts_of(new).texts
    view = View("id", 1, "now", None, b"{}", after, 1, 0)
    body, texts = record.unpack(b"".join(record.pack(view, None, 1 << 20)))
    assert (body.id, list(texts.items())) == ("id", list(after.items()))
    if (delta := diff(before, after)) is not None:
        body, texts = record.unpack(b"".join(record.pack(view, delta, 1 << 20)))
        assert (body.delta, texts) == (delta, {})
        assert list(apply(before, delta).items()) == list(after.items())


def test_not_a_number_stays_one_beside_null() -> None:
    text, _copied = json_text.encode([None, math.nan])
    none, nan = json_text.decode(text)
    assert none is None
    assert math.isnan(nan)


# Seals.

KEY = os.urandom(32)


@settings(deadline=None)
@given(st.binary(max_size=5000) | st.integers(0, 5000).map(lambda n: b"abc" * n), st.booleans())
def test_what_was_sealed_opens_only_as_it_is_and_where_it_stands(plain: bytes, encrypted: bool) -> None:
    sealer = Sealer(KeyRing("k", {"k": KEY}) if encrypted else None)
    sealed = sealer.seal(plain, "here")
    assert sealer.open(sealed, "here") == plain
    assert sealer.open(b"".join(sealer.seal_as_is((plain[:9], plain[9:]), "here")), "here") == plain
    if len(plain) > 1024 and plain.startswith(b"abc"):
        assert len(sealed) < len(plain) // 5
    if encrypted:
        with pytest.raises(WrongKey):
            sealer.open(sealed, "there")
        with pytest.raises(WrongKey):
            sealer.open(sealed[:-1] + bytes((sealed[-1] ^ 1,)), "here")


@given(st.binary(max_size=40))
def test_bytes_that_are_not_ours_are_refused_in_our_words(junk: bytes) -> None:
    sealer = Sealer()
    try:
        assert sealer.open(junk, "") == junk[1:]
        assert junk[0] == 0
    except (SealBroken, UnknownKey):
        assert not junk or junk[0] != 0
