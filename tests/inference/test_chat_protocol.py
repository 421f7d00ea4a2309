"""The short way of a chat completion, over raw sockets: what it says is what the long way says, whatever a client does.

A body of more than 64 KiB goes the long way, through the application.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest

from tests.asking import CHAT, Json, chat_body, data_lines
from tests.eventually import until
from tests.servers import Server, TestOrg

BROKEN = "[simulate: error=2] [simulate: pace=20]"  # slowly: what comes together with an error is not passed on
LONG = {"ignored": "x" * 70_000}
MADE_EACH_TIME = ("date", "x-request-id", "content-length")


@pytest.fixture(params=["known", "new"])
def org(simulated: Server, request: pytest.FixtureRequest) -> TestOrg:
    """A warm engine is at hand; so are its key and its funds if it has asked already."""
    orgs = {"known": simulated.new_org()}
    httpx.post(simulated.url + CHAT, headers=orgs["known"].headers, json=chat_body(), timeout=30).raise_for_status()
    return orgs.get(request.param) or simulated.new_org()


def without_ids(value: Any) -> Any:
    """The answer but for what is another in each."""
    if isinstance(value, dict):
        return {key: without_ids(inner) for key, inner in value.items() if key not in ("id", "created")}
    return [without_ids(inner) for inner in value] if isinstance(value, list) else value


def told(response: httpx.Response) -> tuple[int, Json, Any]:
    headers = {name: value for name, value in response.headers.items() if name not in MADE_EACH_TIME}
    if "event-stream" not in headers["content-type"]:
        return response.status_code, headers, without_ids(response.json())
    events = [line if line == "[DONE]" else without_ids(orjson.loads(line)) for line in data_lines(response.text)]
    return response.status_code, headers, events


ASKED: dict[str, Json] = {
    "a whole answer": {},
    "a stream": {"stream": True},
    "a stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
    "several answers": {"n": 3},
    "log-probabilities": {"logprobs": True, "top_logprobs": 2},
    "a prompt that is too long": {"messages": [{"role": "user", "content": "word " * 9000}]},
    "an engine's error": {"messages": [{"role": "user", "content": "[simulate: error]"}]},
    "an engine's error in a stream": {"stream": True, "messages": [{"role": "user", "content": BROKEN}]},
    "no such model": {"model": "nobody/knows"},
    "a wrong temperature": {"temperature": 9},
    "an image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
}


@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED.keys())
def test_both_ways_say_the_same(simulated: Server, org: TestOrg, fields: Json) -> None:
    with httpx.Client(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        short, long = (client.post(CHAT, json={**chat_body(), **fields, **way}) for way in ({}, LONG))
    assert told(short) == told(long)


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def request(org: TestOrg, *headers: str, version: str = "1.1", **fields: Any) -> bytes:
    body = orjson.dumps(chat_body(**fields))
    lines = (f"POST {CHAT} HTTP/{version}", "Host: loam", f"Authorization: Bearer {org.key}", *headers)
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def answers_in(connection: socket.socket, count: int) -> list[Json]:
    """The bodies of so many whole answers, in the order in which they come."""
    found: list[Json] = []
    with connection.makefile("rb") as stream:
        while len(found) < count:
            assert stream.readline().split()[1] == b"200"
            length = 0
            while line := stream.readline().lower().strip():
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
            found.append(orjson.loads(stream.read(length)))
    return found


def text_of(answer: Json) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_requests_that_a_client_sends_ahead_are_answered_in_their_order(simulated: Server, org: TestOrg) -> None:
    with connected(simulated) as connection:
        connection.sendall(b"".join(request(org, text=f"number {n}") for n in range(4)))
        answers = answers_in(connection, 4)
    assert [f"number {n}" in text_of(answer) for n, answer in enumerate(answers)] == [True] * 4


def test_a_body_may_come_in_pieces_of_one_byte(simulated: Server, org: TestOrg) -> None:
    with connected(simulated) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(org, text="slowly"):
            connection.send(bytes([byte]))
        assert "slowly" in text_of(answers_in(connection, 1)[0])


def test_a_body_may_come_in_chunks(simulated: Server, org: TestOrg) -> None:
    body = orjson.dumps(chat_body("in chunks"))
    lines = (f"POST {CHAT} HTTP/1.1", "Host: loam", f"Authorization: Bearer {org.key}", "Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "", ""])
    with connected(simulated) as connection:
        connection.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert "in chunks" in text_of(answers_in(connection, 1)[0])


def test_a_client_that_asks_whether_to_go_on_is_told_to(simulated: Server, org: TestOrg) -> None:
    head, _, body = request(org, "Expect: 100-continue", text="may I").partition(b"\r\n\r\n")
    with connected(simulated) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert "may I" in text_of(answers_in(connection, 1)[0])


@pytest.mark.parametrize("last", [("1.1", "Connection: close"), ("1.0", "X-Nothing: special")])
def test_the_connection_ends_when_the_client_wants_no_more(
    simulated: Server, org: TestOrg, last: tuple[str, str]
) -> None:
    version, header = last
    with connected(simulated) as connection:
        connection.sendall(request(org, header, version=version))
        answers_in(connection, 1)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("way", [{}, LONG], ids=["short", "long"])
def test_a_client_that_leaves_frees_its_engine_and_pays_for_what_was_made(
    simulated: Server, org: TestOrg, streams: bool, way: Json
) -> None:
    with httpx.Client(base_url=simulated.url, headers=org.headers, timeout=30) as client:

        def n_tokens() -> int:
            count: int = client.get("/v1/balance/usage").json()["last_30_days"]["token_count"]
            return count

        before = n_tokens()
        with connected(simulated) as connection:
            slowly = "[simulate: pace=100] [simulate: tokens=3000]"
            connection.sendall(request(org, text=slowly, stream=streams, max_tokens=3000, **way))
            if streams:
                seen = b""
                while seen.count(b"data: ") < 20:
                    seen += connection.recv(10_000)
            else:
                time.sleep(0.5)  # its tokens are told to nobody meanwhile
        charged = until(lambda: n_tokens() - before, within_seconds=3)
        assert 10 < charged < 500
        time.sleep(0.3)
        assert n_tokens() - before == charged
