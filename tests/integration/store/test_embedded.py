"""The server of one's own: what it leaves behind when it does not start, and when it is killed."""

import signal
import time

import psutil
import pytest
import redis

from techrevati.store.embedded import EmbeddedRedis, RedisDidNotStart


def ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_server_that_does_not_start_says_why_and_leaves_no_directory() -> None:
    server = EmbeddedRedis(options={"no-such-option": "1"})
    with pytest.raises(RedisDidNotStart, match="did not start"), server:
        pass
    assert server.pid is None
    assert not server.directory.exists()


def test_a_killed_servers_child_does_not_write_into_the_next_ones_files() -> None:
    with EmbeddedRedis(options={"rdb-key-save-delay": "100000"}) as server:
        with redis.Redis.from_url(server.url) as client:
            client.mset({f"k{number}": "v" for number in range(1000)})
            client.bgsave()  # takes 100 s
        assert server.pid is not None
        (child,) = psutil.Process(server.pid).children()
        server.stop(sig=signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not ended(child):
            assert time.monotonic() < deadline, "the child writes on"
            time.sleep(0.01)
    assert not server.directory.exists()
