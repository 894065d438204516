"""The app factory and the broker's URL in all its spellings."""

import pickle
from typing import Any

import pytest
from kombu.connection import Connection

from techrevati.fleet.celery.app import make_celery
from techrevati.fleet.celery.bootsteps import ConsumerStalled, CoroutineRun, waiting_work
from techrevati.fleet.celery.broker import UnsupportedBroker, broker_options, broker_url, is_redis
from techrevati.fleet.celery.loop_thread import LoopDidNotStart
from techrevati.fleet.celery.pool import TaskPool
from techrevati.fleet.celery.tickets import TASK
from techrevati.fleet.celery.transport import decode_message, room


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("redis://:pw@host:6379/2", "redis://:pw@host:6379/2"),
        ("rediss://host/0", "rediss://host/0"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix://:pw@/run/redis.sock?db=1", "redis+socket://:pw@/run/redis.sock?virtual_host=1"),
        ("redis+socket:///run/r.sock?virtual_host=1", "redis+socket:///run/r.sock?virtual_host=1"),
        ("sentinel://a:26379?master_name=m;sentinel://b:26379", "sentinel://a:26379/0;sentinel://b:26379/0"),
        ("sentinel://:p%40w@a,b:1/3?master_name=m", "sentinel://:p%40w@a:26379/3;sentinel://:p%40w@b:1/3"),
        ("amqp://u:p@rabbit/vhost", "amqp://u:p@rabbit/vhost"),
    ],
)
def test_broker_url_is_what_kombu_opens(url: str, given: str) -> None:
    assert broker_url(url) == given
    connection = Connection(given)  # type: ignore[no-untyped-call]  # kombu says it is typed
    assert connection.transport_cls in {"redis", "rediss", "sentinel", "amqp"}


@pytest.mark.parametrize("url", ["kafka://x", "localhost:6379", "", "memory://"])
def test_unknown_broker_is_refused_with_the_choice(url: str) -> None:
    for function in (broker_url, broker_options, is_redis):
        with pytest.raises(UnsupportedBroker, match="use redis://"):
            function(url)


def test_options_fit_the_transport() -> None:
    assert broker_options("redis://h")["ack_emulation"] is False
    assert broker_options("redis://h")["socket_keepalive"] is True
    assert "socket_keepalive" not in broker_options("unix:///s")
    assert broker_options("sentinel://h?master_name=m")["master_name"] == "m"
    assert broker_options("sentinel://h")["master_name"] == "mymaster"
    assert "ack_emulation" not in broker_options("amqp://h")
    assert broker_options("redis://h") is not broker_options("redis://h")


def test_app_knows_all_a_worker_needs() -> None:
    app = make_celery("newsroom", broker_url="unix:///r.sock", role="writer", concurrency=77)
    conf: Any = app.conf
    assert conf.worker_pool == "techrevati.fleet.celery.pool:TaskPool"
    assert conf.worker_concurrency == 77
    assert list(app.amqp.queues) == ["newsroom.role.writer"]
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier) == (True, 1)
    assert conf.accept_content == ["json"]
    assert conf.worker_enable_remote_control is False
    assert conf.worker_soft_shutdown_timeout == 30.0
    assert TASK in app.tasks
    assert app.connection_for_read().transport_cls == "techrevati.fleet.celery.transport:TicketTransport"
    assert app.connection_for_write().transport_cls == "redis"
    assert app.techrevati_draining() is False
    app.techrevati_pool = TaskPool(limit=1, app=app)
    app.techrevati_pool.begin_drain()
    assert app.techrevati_draining() is True


def test_caller_may_override_transport_options() -> None:
    app = make_celery("n", broker_url="redis://h", transport_options={"socket_timeout": 3})
    assert app.conf.broker_transport_options["socket_timeout"] == 3
    assert app.conf.broker_transport_options["ack_emulation"] is False


def test_two_apps_of_one_process_keep_their_own() -> None:
    one = make_celery("one", broker_url="redis://h", role="a")
    two = make_celery("two", broker_url="redis://h", role="b")
    assert list(one.amqp.queues) == ["one.role.a"]
    assert list(two.amqp.queues) == ["two.role.b"]
    assert one.tasks[TASK] is not two.tasks[TASK]


@pytest.mark.parametrize(
    ("limits", "count"), [((None, None), 31), ((5, None), 5), ((None, 0), 0), ((40, 7), 7), ((-2, 3), 0)]
)
def test_batch_is_the_least_of_its_limits(limits: tuple[int | None, ...], count: int) -> None:
    assert room(31, *limits) == count


def test_messages_decode_as_kombu_would() -> None:
    assert decode_message(b'{"headers": {"n": 1}}') == {"headers": {"n": 1}}
    assert decode_message('{"n": NaN}')["n"] != 0
    tagged = '{"body": {"__type__": "bytes", "__value__": "hi"}}'
    assert decode_message(tagged) == {"body": b"hi"}


@pytest.mark.parametrize(
    "error",
    [UnsupportedBroker("x"), CoroutineRun("t"), ConsumerStalled("5 ready"), LoopDidNotStart("E", "why")],
)
def test_errors_survive_pickling(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_only_tickets_at_the_broker_prove_a_stall() -> None:
    assert waiting_work(None, lambda: 4)() == 4
    assert waiting_work(lambda: 9, lambda: 4)() == 4
    assert waiting_work(lambda: 9, lambda: 0)() == 0
    assert waiting_work(lambda: 0, lambda: 1 // 0)() == 0
