"""The simulated engine as a process: how it starts, breaks and ends."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.engines.simulated_client import CHAT, PATIENCE_SECONDS, running, start, stream, user, wait_for_line


def test_a_crash_leaves_three_tokens_and_no_process() -> None:
    with running() as (process, client, _):
        seen = b""
        body = {"messages": user("[simulate: crash]"), "stream": True}
        with suppress(httpx.RemoteProtocolError), client.stream("POST", CHAT, json=body) as response:
            for part in response.iter_raw():
                seen += part
        assert seen.count(b"data: ") == 4  # the role comes before the first token
        assert process.wait(PATIENCE_SECONDS) == 1


def test_a_fault_can_be_set_for_all_requests() -> None:
    with running("--simulate-fault", "tokens:7", "error:3") as (_, client, _):
        *chunks, last = stream(client)
        assert (len(chunks), last["error"]["code"]) == (4, 500)


def test_sigterm_ends_it_also_in_the_middle_of_an_answer() -> None:
    with running() as (process, client, _):
        body = {"messages": user("[simulate: hang]"), "stream": True}
        with client.stream("POST", CHAT, json=body) as response:
            parts = response.iter_raw()
            assert next(parts)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0


def test_it_can_ignore_sigterm() -> None:
    with running("--simulate-fault", "ignore_sigterm") as (process, client, _):
        process.send_signal(signal.SIGTERM)
        assert client.get("/health").status_code == 200
        assert process.poll() is None


def test_a_failing_start_says_why(tmp_path: Path) -> None:
    with start(tmp_path / "e", "--simulate-fault", "start_fails") as process:
        seen = wait_for_line(process, "RuntimeError: Engine core initialization failed")
        assert "out of memory" in seen
        assert process.wait(PATIENCE_SECONDS) == 1


def test_a_stale_socket_file_stops_the_start() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "e.sock"
        path.touch()
        with start(path) as process:
            wait_for_line(process, "Address already in use")
            assert process.wait(PATIENCE_SECONDS) == 1


def test_a_hanging_start_listens_to_nobody() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "e.sock"
        with start(path, "--simulate-fault", "start_hangs") as process, socket.socket(socket.AF_UNIX) as probe:
            wait_for_line(process, "Starting to load model")
            with pytest.raises(ConnectionRefusedError):
                probe.connect(str(path))
            process.kill()


def test_it_needs_neither_torch_nor_vllm_nor_the_server() -> None:
    script = "import sys, app.engines.simulated; print(*sys.modules)"
    modules = set(subprocess.check_output([sys.executable, "-c", script], text=True, env=os.environ).split())
    assert not modules & {"torch", "vllm", "transformers", "fastapi", "sqlalchemy", "pydantic"}
    ours = {name for name in modules if name.startswith("app.") and "simulated" not in name}
    assert ours == {"app.engines", "app.engines.formats"}
