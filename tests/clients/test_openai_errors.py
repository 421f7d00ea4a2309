"""The `openai` package's errors and retries: each refusal as its own class, tried again only where that may help."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.asking import MODEL, spend_everything
from tests.servers import Server

HELLO: Any = [{"role": "user", "content": "Hello there"}]
FAILING: Any = [{"role": "user", "content": "[simulate: error]"}]
CRASHING: Any = [{"role": "user", "content": "[simulate: crash] " + "word " * 20}]


@contextmanager
def counting(reach: dict[str, Any], **options: Any) -> Iterator[tuple[OpenAI, list[str]]]:
    """A client, and the requests that it makes."""
    sent: list[str] = []
    http = httpx2.Client(event_hooks={"request": [lambda request: sent.append(str(request.url))]})
    with OpenAI(**{**reach, **options}, http_client=http) as client:
        yield client, sent


@pytest.fixture(scope="module")
def client(reach: dict[str, Any]) -> Iterator[OpenAI]:
    with OpenAI(**reach) as client:
        yield client


def test_a_wrong_key_is_an_authentication_error_and_is_not_tried_again(reach: dict[str, Any]) -> None:
    with counting(reach, api_key="nobody") as (client, sent), pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert len(sent) == 1


def test_a_bad_value_tells_its_parameter(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=9)
    assert refusal.value.param == "temperature"
    assert refusal.value.type == "invalid_request_error"
    assert refusal.value.request_id


def test_an_unknown_model_tells_its_code(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert refusal.value.code == "model_not_found"


def test_a_prompt_that_is_too_long_tells_its_code(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 6000}])
    assert refusal.value.code == "context_length_exceeded"


def test_without_money_nothing_is_tried_again(simulated: Server) -> None:
    org = simulated.new_org()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, spend_everything(simulated, org)).result()
    reach = {"base_url": f"{simulated.url}/v1", "api_key": org.key}
    with counting(reach) as (client, sent), pytest.raises(openai.APIStatusError) as refusal:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert refusal.value.status_code == 402
    assert len(sent) == 1


def test_what_an_engine_could_not_answer_is_tried_again(reach: dict[str, Any]) -> None:
    with counting(reach, max_retries=1) as (client, sent), pytest.raises(openai.InternalServerError) as refusal:
        client.chat.completions.create(model=MODEL, messages=FAILING)
    assert refusal.value.status_code == 503
    assert len(sent) == 2


def test_an_engine_that_dies_inside_a_stream_is_an_error_of_the_stream(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="Qwen/Qwen3-4B", messages=CRASHING, stream=True)
    with pytest.raises(openai.APIError) as refusal:
        list(stream)
    assert refusal.value.code == "engine_error"


def test_a_client_that_will_not_wait_gets_its_own_timeout(reach: dict[str, Any]) -> None:
    slow: Any = [{"role": "user", "content": "[simulate: slow=30]"}]
    with counting(reach, timeout=0.5, max_retries=0) as (client, sent), pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=MODEL, messages=slow)
    assert len(sent) == 1
