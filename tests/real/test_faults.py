"""The real engine when it cannot start, and when its worker hangs."""

import shutil
import signal
import time
from collections.abc import Iterator

import httpx
import pytest
import yaml

from app.settings import ROOT
from tests.asking import CHAT, chat_body
from tests.eventually import until
from tests.real.engines import engine_processes
from tests.servers import Server, running_server

pytestmark = pytest.mark.engine

SILENCE_SECONDS = 4.0
CORRUPT = "test/corrupt"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the demo model, and with a copy of it whose weights end too early."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(ROOT / "demo" / "model", folder / "corrupt")
    weights = folder / "corrupt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    shipped = yaml.safe_load((ROOT / "models.yaml").read_text())
    demo = next(model for model in shipped["models"] if model["id"] == "loam/demo")
    demo["weights"] = str(ROOT / "demo" / "model")
    models = [demo, {**demo, "id": CORRUPT, "weights": str(folder / "corrupt")}]
    (folder / "models.yaml").write_text(yaml.safe_dump({**shipped, "models": models}))
    settings = {
        "LOAM_CATALOG": str(folder / "models.yaml"),
        "LOAM_STREAM_SILENCE_SECONDS": str(SILENCE_SECONDS),
        "LOAM_LEASE_SECONDS": "2",
    }
    with running_server(folder, **settings) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.new_org().headers, timeout=120) as client:
        yield client


def test_corrupt_weights_are_a_failed_start_that_says_why_and_hurts_nobody_else(http: httpx.Client) -> None:
    refused = http.post(CHAT, json=chat_body() | {"model": CORRUPT})
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_start_failed"
    assert "safetensor" in refused.json()["detail"].lower(), refused.json()
    assert refused.json()["troubleshooting"]["log"]
    assert http.get(f"/api/warmup/status/{CORRUPT}").json()["status"] == "failed"
    assert http.post(CHAT, json=chat_body(max_tokens=4)).status_code == 200


def test_an_engine_whose_worker_hangs_is_killed_at_the_limit_and_started_again(
    http: httpx.Client, server: Server
) -> None:
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
