"""Chat completions and their chunks are what OpenAI's document says."""

from typing import Any

import orjson
import pytest
from httpx import AsyncClient

from tests.asking import CHAT as PATH
from tests.asking import events_of, ok
from tests.conformance.cases import CHAT, THOUGHTS, chat_asked
from tests.conformance.shapes import OPENAI

pytestmark = pytest.mark.anyio

CASES = {**CHAT, "thoughts": THOUGHTS}


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
async def test_a_completion_is_of_the_documents_shape(client: AsyncClient, fields: dict[str, Any]) -> None:
    completion = ok(await client.post(PATH, json=chat_asked(fields)))
    OPENAI.check("CreateChatCompletionResponse", completion)
    assert len(completion["choices"]) == fields.get("n", 1)
    assert all(choice["message"]["refusal"] is None for choice in completion["choices"])
    assert completion["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
async def test_every_chunk_is_of_the_documents_shape(client: AsyncClient, fields: dict[str, Any]) -> None:
    asked = chat_asked({**fields, "stream": True, "stream_options": {"include_usage": True}})
    chunks = events_of(await client.post(PATH, json=asked))
    for chunk in chunks:
        OPENAI.check("CreateChatCompletionStreamResponse", chunk)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert bool(fields.get("logprobs")) == any(choice.get("logprobs") for c in chunks for choice in c["choices"])


async def test_an_answer_tells_why_it_ended(client: AsyncClient) -> None:
    reasons = {
        name: ok(await client.post(PATH, json=chat_asked(CHAT[name])))["choices"][0]["finish_reason"]
        for name in ("plain", "cut at its length", "stopped at a word", "tools to choose from")
    }
    assert reasons == {
        "plain": "stop",
        "cut at its length": "length",
        "stopped at a word": "stop",
        "tools to choose from": "tool_calls",
    }


async def test_an_error_inside_a_stream_is_an_error_of_the_documents_shape(client: AsyncClient) -> None:
    asked = {"messages": [{"role": "user", "content": "[simulate: crash] word " * 9}], "stream": True}
    response = await client.post(PATH, json=chat_asked({**asked, "model": "Qwen/Qwen2.5-1.5B-Instruct"}))
    *_, last = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    OPENAI.check("ErrorResponse", orjson.loads(last))
