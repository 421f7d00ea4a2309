"""The real engine when it cannot start, and when its worker hangs."""

import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.asking import CHAT, chat_body
from tests.eventually import until
from tests.real.corrupt import CORRUPT
from tests.real.engines import engine_processes
from tests.servers import Server, running_server

pytestmark = pytest.mark.engine

SILENCE_SECONDS = 4.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that soon loses patience."""
    settings = {"LOAM_STREAM_SILENCE_SECONDS": str(SILENCE_SECONDS), "LOAM_LEASE_SECONDS": "2"}
    with running_server(tmp_path_factory.mktemp("faults"), command="serve", **settings) as server:
        yield server


def client_of(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=server.new_org().headers, timeout=120)


def test_corrupt_weights_are_a_failed_start_that_says_why_and_hurts_nobody_else(real: Server) -> None:
    with client_of(real) as http:
        refused = http.post(CHAT, json=chat_body() | {"model": CORRUPT})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_start_failed"
        assert "safetensor" in refused.json()["detail"].lower(), refused.json()
        assert refused.json()["troubleshooting"]["log"]
        assert http.get(f"/api/warmup/status/{CORRUPT}").json()["status"] == "failed"
        assert http.post(CHAT, json=chat_body(max_tokens=4)).status_code == 200


def test_an_engine_whose_worker_hangs_is_killed_at_the_limit_and_started_again(server: Server) -> None:
    with client_of(server) as http:
        assert http.post(CHAT, json=chat_body(max_tokens=4)).status_code == 200
        before = engine_processes(server)
        body = chat_body(stream=True, max_tokens=4000, ignore_eos=True)
        with http.stream("POST", CHAT, json=body) as answer:
            lines = answer.iter_lines()
            for _ in range(10):
                next(lines)
            began = time.monotonic()
            before[-1].send_signal(signal.SIGSTOP)  # the worker: it was started last
            last = [line for line in lines if line][-1]
        assert "error" in last
        until(lambda: not any(process.is_running() for process in before), within_seconds=2 * SILENCE_SECONDS)
        assert time.monotonic() - began < 2 * SILENCE_SECONDS
        assert until(lambda: http.post(CHAT, json=chat_body(max_tokens=4)).status_code == 200, within_seconds=60)
