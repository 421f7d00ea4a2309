"""The `instructor` package: answers as types, through tools and through JSON schemas."""

from collections.abc import Iterator
from typing import Any

import instructor
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.asking import MODEL
from tests.clients.typed import City

QUESTION: Any = [{"role": "user", "content": "Where is the nicest street?"}]
MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]


@pytest.fixture(params=MODES, ids=lambda mode: mode.value)
def client(request: pytest.FixtureRequest, reach: dict[str, Any]) -> Iterator[instructor.Instructor]:
    with OpenAI(**reach) as openai:
        yield instructor.from_openai(openai, mode=request.param)


def test_an_answer_is_made_into_a_type(client: instructor.Instructor) -> None:
    city, completion = client.create_with_completion(model=MODEL, messages=QUESTION, response_model=City, max_retries=0)
    assert isinstance(city, City)
    assert len(city.streets) > 0
    assert completion.usage.completion_tokens > 0


def test_an_answer_grows_while_it_is_streamed(client: instructor.Instructor) -> None:
    grown = list(client.create_partial(model=MODEL, messages=QUESTION, response_model=City))
    whole = client.create(model=MODEL, messages=QUESTION, response_model=City)
    assert grown[-1].model_dump() == whole.model_dump()
    assert len({part.model_dump_json() for part in grown}) > 3
    assert grown[0].country is None


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
async def test_the_asynchronous_client_does_the_same(reach: dict[str, Any], mode: instructor.Mode) -> None:
    async with AsyncOpenAI(**reach) as openai:
        client = instructor.from_openai(openai, mode=mode)
        city = await client.create(model=MODEL, messages=QUESTION, response_model=City, max_retries=0)
        parts = [part async for part in client.create_partial(model=MODEL, messages=QUESTION, response_model=City)]
    assert parts[-1].model_dump() == city.model_dump()
