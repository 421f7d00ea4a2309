"""How a server stops: it says so first, ends what it has begun, and a second signal is the last."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.up import CannotStart, check_socket_paths
from tests.asking import CHAT, chat_body
from tests.engines.running import processes_of
from tests.eventually import until
from tests.servers import Server, running_server


@contextmanager
def streaming(server: Server, told: str) -> Iterator[Iterator[str]]:
    """The lines of an answer that has begun."""
    body = chat_body(told, stream=True)
    with httpx.stream("POST", server.url + CHAT, json=body, headers=server.new_org().headers, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        yield lines


def test_a_server_that_stops_says_so_and_ends_what_it_has_begun(tmp_path: Path) -> None:
    with running_server(tmp_path, "--simulate") as server:
        headers = server.new_org().headers
        with streaming(server, "[simulate: tokens=40] [simulate: pace=20]") as lines:
            server.process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{server.url}/health").status_code == 503)
            refused = httpx.post(server.url + CHAT, json=chat_body(), headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert int(refused.headers["retry-after"]) <= 60
            assert httpx.post(server.url + CHAT, json=chat_body()).status_code == 401
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert server.process.wait(10) == 0
        assert processes_of(tmp_path / "engines") == []


def train(server: Server, training_file: Path) -> None:
    """Returns when the worker is at it."""
    with (
        httpx.Client(base_url=server.url, headers=server.new_org().headers) as client,
        training_file.open("rb") as file,
    ):
        uploaded = client.post("/v1/files", files={"file": file}, data={"purpose": "fine-tune"}).json()
        body = {"model": "loam/demo", "training_file": uploaded["id"]}
        job = client.post("/v1/fine_tuning/jobs", json=body).json()
        until(lambda: client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["status"] == "running")


def test_a_second_signal_ends_it_at_once(tmp_path: Path, training_file: Path) -> None:
    stubborn = {"LOAM_SIMULATE_TRAINING_SECONDS": "60", "LOAM_SIMULATE_TRAINING_FAULTS": '["ignore_sigterm"]'}
    with running_server(tmp_path, "--simulate", **stubborn) as server, streaming(server, "[simulate: hang]"):
        train(server, training_file)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5
        until(lambda: not processes_of(tmp_path), within_seconds=2)


def test_a_stream_that_does_not_end_is_cut_when_the_grace_is_over(tmp_path: Path) -> None:
    grace = {"LOAM_SHUTDOWN_GRACE_SECONDS": "1"}
    with (
        running_server(tmp_path, "--simulate", command="serve", **grace) as server,
        streaming(server, "[simulate: hang]"),
    ):
        began = time.monotonic()
        assert server.stop() == 0
        assert 1 < time.monotonic() - began < 10
        assert processes_of(tmp_path / "engines") == []


def test_a_data_dir_too_long_for_sockets_is_refused_with_what_to_do() -> None:
    check_socket_paths(Settings(data_dir=Path("/") / ("d" * 80)))
    with pytest.raises(CannotStart, match=r"LOAM_DATA_DIR is 1 bytes too long .* Name a shorter one"):
        check_socket_paths(Settings(data_dir=Path("/") / ("d" * 81)))
