"""What the real vLLM answers is, after us, of the documents' shapes too."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.asking import CHAT as CHAT_PATH
from tests.asking import events_of
from tests.conformance.cases import CHAT, CITY, RESPONSES, chat_asked, response_asked
from tests.conformance.shapes import OPEN_RESPONSES, OPENAI
from tests.servers import Server, TestOrg

pytestmark = pytest.mark.engine

Json = dict[str, Any]


@pytest.fixture(scope="module")
def http(real: Server, real_org: TestOrg) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real.url, headers=real_org.headers, timeout=180) as client:
        yield client


def answer(http: httpx.Client, path: str, body: Json) -> Json:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    told: Json = response.json()
    return told


def events(http: httpx.Client, path: str, body: Json) -> list[Json]:
    response = http.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    return events_of(response)


@pytest.mark.parametrize("fields", CHAT.values(), ids=CHAT.keys())
def test_a_completion_and_its_chunks_are_of_the_documents_shape(http: httpx.Client, fields: Json) -> None:
    OPENAI.check("CreateChatCompletionResponse", answer(http, CHAT_PATH, chat_asked(fields)))
    chunks = events(http, CHAT_PATH, chat_asked({**fields, "stream_options": {"include_usage": True}}))
    for chunk in chunks:
        OPENAI.check("CreateChatCompletionStreamResponse", chunk)
    assert chunks[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("fields", RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_and_its_events_are_of_the_documents_shape(http: httpx.Client, fields: Json) -> None:
    response = answer(http, "/v1/responses", response_asked(fields))
    OPENAI.check("Response", response)
    OPEN_RESPONSES.check("ResponseResource", response)
    for event in events(http, "/v1/responses", response_asked(fields)):
        OPENAI.check_event(event)
        OPEN_RESPONSES.check_event(event)


def test_a_json_schema_rules_both_apis(http: httpx.Client) -> None:
    chat = answer(http, CHAT_PATH, chat_asked(CHAT["a JSON schema"]))
    response = answer(http, "/v1/responses", response_asked(RESPONSES["a JSON schema"]))
    for text in (chat["choices"][0]["message"]["content"], response["output_text"]):
        assert json.loads(text)["city"] in CITY["properties"]["city"]["enum"]


def test_a_background_response_is_told_live_and_again(http: httpx.Client) -> None:
    live = events(http, "/v1/responses", response_asked({"background": True}))
    for event in live:
        OPENAI.check_event(event)
    path = f"/v1/responses/{live[0]['response']['id']}"
    assert events_of(http.get(path, params={"stream": "true"})) == live
    assert http.get(path).json() == live[-1]["response"]
