"""Starts simulated engines for tests, and asks them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
PATIENCE_SECONDS = 20.0


def start(socket: Path, *flags: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "app.engines.simulated", "--uds", str(socket), "--model", "Qwen/Qwen3-0.6B"]
    served = ["--served-model-name", "base", "--max-model-len", "2048", "--enable-lora", "--max-loras", "4"]
    return subprocess.Popen([*argv, *served, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def running(*flags: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, Path]]:
    """A started engine, a client to it, its socket; killed at the end."""
    with TemporaryDirectory() as folder:  # pytest's own folders are too long a name for a socket
        socket = Path(folder) / "e.sock"
        with start(socket, *flags) as process, client_of(socket) as client:
            try:
                wait_for_line(process, "Application startup complete.")
                yield process, client, socket
            finally:
                process.kill()


def client_of(socket: Path) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=PATIENCE_SECONDS
    )


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"never said {text!r}:\n{seen}")


def user(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]


def chat(client: httpx.Client, text: str = "Hello there", **fields: Any) -> Json:
    response = client.post(CHAT, json={"model": "base", "messages": user(text), **fields})
    assert response.status_code == 200, response.text
    body: Json = response.json()
    return body


def content(body: Json, index: int = 0) -> str:
    text: str = body["choices"][index]["message"]["content"]
    return text


def stream(client: httpx.Client, text: str = "Hello there", **fields: Any) -> list[Json]:
    """The chunks; the stream has to end with [DONE]."""
    body = {"model": "base", "messages": user(text), "stream": True, **fields}
    *events, done = [event for event in client.post(CHAT, json=body).text.split("\n\n") if event]
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def running_requests(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("vllm:num_requests_running{")).split()[-1])
