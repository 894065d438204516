"""Settings: from the environment, once, with errors that name the variable."""

from datetime import timedelta

import pytest

from techrevati.fleet.settings import BadSettings, Settings, load_settings, seconds


def test_the_environment_is_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHREVATI_LEASE_TTL", "7")
    monkeypatch.setenv("TECHREVATI_PARTITIONS", "9")
    found = load_settings(partitions=3)
    assert (found.lease_ttl, found.partitions) == (7.0, 3)


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHREVATI_LEASE_TTL", "-1")
    monkeypatch.setenv("TECHREVATI_CONCURRENCY", "many")
    with pytest.raises(BadSettings) as told:
        load_settings()
    assert "TECHREVATI_LEASE_TTL='-1'" in str(told.value) and "TECHREVATI_CONCURRENCY='many'" in str(told.value)


def test_the_broker_is_the_store_unless_said_otherwise() -> None:
    assert Settings(redis_url="redis://a/1").broker == "redis://a/1"
    assert Settings(redis_url="redis://a/1", broker_url="amqp://b//").broker == "amqp://b//"


def test_they_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().lease_ttl = 1.0


def test_durations_are_seconds_or_timedeltas_from_zero_up() -> None:
    assert seconds(timedelta(minutes=1), "delay") == 60 and seconds(0, "delay") == 0
    for value in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"delay=.* is refused"):
            seconds(value, "delay")


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
