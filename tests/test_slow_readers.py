"""A client that takes nothing of an answer does not hold what makes it for ever."""

import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.asking import chat_body
from tests.eventually import until
from tests.servers import Server, running_server

MANY = {"logprobs": True, "top_logprobs": 20, "n": 64, "max_tokens": 1000}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, quick = tmp_path_factory.mktemp("impatient"), {"LOAM_STREAM_SILENCE_SECONDS": "1"}
    with running_server(folder, "--simulate", command="serve", **quick) as server:
        yield server


def asked(server: Server, request: httpx.Request) -> socket.socket:
    """A connection on which it was sent, with little room for what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    lines = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.read())
    until(lambda: not is_hung_up(server, connection))  # one that is not taken yet looks the same
    return connection


def is_hung_up(server: Server, connection: socket.socket) -> bool:
    """The kernel still has what it cannot deliver; the server has nothing to do with it any more."""
    port = connection.getsockname()[1]
    theirs = psutil.Process(server.process.pid).net_connections("tcp")
    return port not in [each.raddr.port for each in theirs if each.raddr]


def test_who_reads_nothing_of_a_file_is_hung_up_on(impatient: Server) -> None:
    with httpx.Client(base_url=impatient.url, headers=impatient.new_org().headers, timeout=60) as client:
        form = {"files": {"file": ("f", b"x" * (24 << 20))}, "data": {"purpose": "fine-tune-results"}}
        file_id = client.post("/v1/files", **form).raise_for_status().json()["id"]  # type: ignore[arg-type]
        with asked(impatient, client.build_request("GET", f"/v1/files/{file_id}/content")) as connection:
            until(lambda: is_hung_up(impatient, connection))


@pytest.mark.parametrize("path", ["/v1/chat/completions?stream=true", "/v1/responses"])
def test_who_reads_nothing_of_a_stream_frees_its_engine(impatient: Server, path: str) -> None:
    org = impatient.new_org()
    text = "[simulate: tokens=1000] [simulate: pace=100000]"
    body = chat_body(text, **MANY)
    if path == "/v1/responses":
        include = ["message.output_text.logprobs"]
        body = {"model": body["model"], "input": text, "stream": True, "top_logprobs": 20, "include": include, "n": 8}
    with httpx.Client(base_url=impatient.url, headers=org.headers, timeout=60) as client:
        with asked(impatient, client.build_request("POST", path, json=body)) as connection:
            until(lambda: is_hung_up(impatient, connection))
        until(lambda: spent(client) > 0)


def spent(client: httpx.Client) -> int:
    """Charged is at the end, when the engine is given back."""
    count: int = client.get("/v1/balance/usage").json()["last_30_days"]["token_count"]
    return count
