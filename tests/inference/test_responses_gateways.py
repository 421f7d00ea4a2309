"""Responses belong to the store and not to a gateway: others go on with them, restarted ones too."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from httpx import Client

from tests.asking import MODEL, events_of, ok, refused
from tests.conformance.shapes import OPENAI
from tests.eventually import until
from tests.servers import Server, TestOrg, running_server, start_server
from tests.stores import PostgresStores, SqliteStores

PATH = "/v1/responses"
QUICK = {
    "LOAM_LEASE_SECONDS": "2",
    "LOAM_POLL_SECONDS": "0.1",
    "LOAM_SHUTDOWN_GRACE_SECONDS": "0.5",
    "LOAM_MAX_BACKGROUND_RESPONSES": "3",
}
LONG = "Hello [simulate: tokens=2000] [simulate: pace=50]"
TWO_SECONDS = "Hello [simulate: tokens=100] [simulate: pace=50]"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    stores: SqliteStores | PostgresStores = request.getfixturevalue(f"{request.param}_stores")
    return stores.new_url()


@pytest.fixture(scope="module")
def other(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway that lives on."""
    folder = tmp_path_factory.mktemp("other")
    with running_server(folder, "--simulate", command="serve", LOAM_DATABASE_URL=url, **QUICK) as server:
        yield server


class Gateway:
    """One on the same store, that tests kill and start again."""

    def __init__(self, folder: Path, url: str) -> None:
        self._start = partial(start_server, folder, "--simulate", command="serve", LOAM_DATABASE_URL=url, **QUICK)
        self.server = self._start()

    @property
    def is_running(self) -> bool:
        return self.server.process.poll() is None

    def kill(self) -> None:
        self.server.stop(signal.SIGKILL)

    def start(self) -> Server:
        self.server = self._start()
        return self.server


@pytest.fixture(scope="module")
def restartable(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), url)
    yield gateway
    if gateway.is_running:
        gateway.server.stop()


@pytest.fixture
def gateway(restartable: Gateway) -> Gateway:
    if not restartable.is_running:
        restartable.start()
    return restartable


@pytest.fixture(scope="module")
def org(other: Server) -> TestOrg:
    return other.new_org()


def client_of(server: Server, org: TestOrg) -> Client:
    return Client(base_url=server.url, headers=org.headers, timeout=30)


def begin(client: Client, text: str, **fields: Any) -> str:
    asked = {"model": MODEL, "input": text, "background": True, **fields}
    response_id: str = ok(client.post(PATH, json=asked))["id"]
    return response_id


def once(client: Client, response_id: str, *statuses: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        response = ok(client.get(f"{PATH}/{response_id}"))
        return response if response["status"] in statuses else None

    found = until(look)
    assert found
    return found


def followed(client: Client, response_id: str, after: str = "") -> list[dict[str, Any]]:
    response = client.get(f"{PATH}/{response_id}?stream=true{after}")
    return events_of(response)


def check_failed(told: list[dict[str, Any]]) -> None:
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["type"] == "response.failed"
    OPENAI.check_event(told[-1])
    assert told[-1]["response"]["error"]["code"] == "server_error"


def test_a_response_is_followed_and_cancelled_through_another_gateway(
    gateway: Gateway, other: Server, org: TestOrg
) -> None:
    with client_of(gateway.server, org) as here, client_of(other, org) as there:
        short = begin(here, TWO_SECONDS)
        told = followed(there, short, "&starting_after=1")
        assert [event["sequence_number"] for event in told] == list(range(2, 2 + len(told)))
        assert told[-1]["type"] == "response.completed"
        long = begin(here, LONG)
        once(there, long, "in_progress")
        spent = ok(there.get("/v1/balance/usage"))["last_30_days"]["token_count"]
        assert ok(there.post(f"{PATH}/{long}/cancel"))["status"] == "cancelled"

        def charged() -> bool:  # by the gateway that worked on it, when it has ended the generation
            return bool(ok(there.get("/v1/balance/usage"))["last_30_days"]["token_count"] > spent)

        until(charged, within_seconds=2)
        assert ok(here.get(f"{PATH}/{long}"))["status"] == "cancelled"


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_same_request_at_two_gateways_at_once_is_answered_once(
    gateway: Gateway, other: Server, org: TestOrg, is_stored: bool
) -> None:
    asked = {"model": MODEL, "input": "Hello [simulate: tokens=25] [simulate: pace=50]", "store": is_stored}
    key = {"Idempotency-Key": f"at two gateways, {is_stored}"}
    with client_of(gateway.server, org) as here, client_of(other, org) as there, ThreadPoolExecutor() as threads:
        begun = [threads.submit(client.post, PATH, json=asked, headers=key) for client in (here, there, here, there)]
        answers = [ok(each.result()) for each in begun]
        assert [answer["id"] for answer in answers] == [answers[0]["id"]] * 4
        assert ok(here.post(PATH, json=asked, headers=key))["output"] == answers[0]["output"]
        found = there.get(f"{PATH}/{answers[0]['id']}")
        if is_stored:
            assert ok(found)["output"] == answers[0]["output"]
        else:
            refused(found, 404, param="response_id")


def test_a_gateway_takes_no_more_background_responses_than_it_may(other: Server, org: TestOrg) -> None:
    with client_of(other, org) as client:
        ids = [begin(client, LONG) for _ in range(3)]
        answer = client.post(PATH, json={"model": MODEL, "input": "Hi", "background": True})
        refused(answer, 429, code="too_many_background_responses")
        for response_id in ids:
            ok(client.post(f"{PATH}/{response_id}/cancel"))
        once(client, begin(client, "Hi"), "completed")


def begin_and_read(client: Client) -> str:
    """A response of which something has been written."""
    asked = {"model": MODEL, "input": LONG, "background": True, "stream": True}
    with client.stream("POST", PATH, json=asked) as response:
        for line in response.iter_lines():
            event = orjson.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if event.get("type") == "response.created":
                response_id: str = event["response"]["id"]
            if event.get("type") == "response.output_text.delta":
                return response_id
    raise AssertionError("nothing was written")


def test_what_a_killed_gateway_worked_on_has_failed(gateway: Gateway, other: Server, org: TestOrg) -> None:
    with client_of(gateway.server, org) as here, client_of(other, org) as there:
        response_id = begin_and_read(here)
        gateway.kill()
        told = followed(there, response_id)
        check_failed(told)
        assert once(there, response_id, "failed") == told[-1]["response"]
        assert told[-1]["response"]["output"][0]["status"] == "incomplete"


def test_what_a_gateway_worked_on_when_it_was_shut_down_has_failed(
    gateway: Gateway, other: Server, org: TestOrg
) -> None:
    with client_of(gateway.server, org) as here, client_of(other, org) as there:
        response_id = begin_and_read(here)
        assert gateway.server.stop() == 0
        response = ok(there.get(f"{PATH}/{response_id}"))
        assert "shut down" in response["error"]["message"]
        check_failed(followed(there, response_id))


def test_a_conversation_goes_on_through_other_and_restarted_gateways(
    gateway: Gateway, other: Server, org: TestOrg
) -> None:
    with client_of(gateway.server, org) as here, client_of(other, org) as there:
        first = say(here, "One")
        second = say(there, "Two", previous_response_id=first["id"])
    gateway.kill()
    with client_of(gateway.start(), org) as here:
        third = say(here, "Three", previous_response_id=second["id"])
    tokens = [turn["usage"]["input_tokens"] for turn in (first, second, third)]
    assert tokens == sorted(set(tokens))  # each turn's prompt holds those before


def say(client: Client, text: str, **fields: Any) -> dict[str, Any]:
    return ok(client.post(PATH, json={"model": MODEL, "input": text, **fields}))
