"""LangChain's ChatOpenAI, over chat completions and over Responses."""

from typing import Any, cast

import httpx2
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.asking import MODEL
from tests.clients.typed import City

# Its own dump of what openai parsed into a type warns of that type.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

QUESTION = "How is the weather in Rome?"


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}"


@pytest.fixture(scope="module", params=[False, True], ids=["chat completions", "responses"])
def options(request: pytest.FixtureRequest, reach: dict[str, Any]) -> dict[str, Any]:
    return {**reach, "model": MODEL, "use_responses_api": request.param, "stream_usage": True}


@pytest.fixture(scope="module")
def llm(options: dict[str, Any]) -> ChatOpenAI:
    return ChatOpenAI(**options)


def whole(chunks: Any) -> AIMessageChunk:
    first, *others = chunks
    for chunk in others:
        first += chunk
    return cast(AIMessageChunk, first)


def test_a_stream_says_and_counts_what_one_answer_does(llm: ChatOpenAI) -> None:
    question = " ".join([QUESTION] * 5)
    llm.invoke(question)  # from now on, the prompt is in the engine's cache
    answer, streamed = llm.invoke(question), whole(llm.stream(question))
    assert question in answer.text
    assert streamed.text == answer.text
    assert answer.usage_metadata
    assert streamed.usage_metadata == answer.usage_metadata
    assert answer.usage_metadata["input_token_details"]["cache_read"] > 0
    assert answer.usage_metadata["total_tokens"] == (
        answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    )


def test_a_bound_tool_is_called_in_a_stream_as_in_one_answer(llm: ChatOpenAI) -> None:
    bound = llm.bind_tools([get_weather])
    answer, chunks = bound.invoke(QUESTION), list(bound.stream(QUESTION))
    [call] = answer.tool_calls
    [streamed] = whole(chunks).tool_calls
    assert (call["name"], call["args"]) == (streamed["name"], streamed["args"]) == ("get_weather", {"city": "city"})
    assert sum(len(cast(AIMessageChunk, chunk).tool_call_chunks) for chunk in chunks) > 1


def test_a_tools_answer_ends_the_conversation(llm: ChatOpenAI) -> None:
    bound = llm.bind_tools([get_weather])
    asked = HumanMessage(QUESTION)
    called = bound.invoke([asked])
    told: ToolMessage = get_weather.invoke(called.tool_calls[0])
    assert "Sunny in city" in bound.invoke([asked, called, told]).text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_is_made_into_a_type(llm: ChatOpenAI, method: Any) -> None:
    structured = llm.with_structured_output(City, method=method)
    assert isinstance(structured.invoke(QUESTION), City)
    *_, last = structured.stream(QUESTION)
    assert last == structured.invoke(QUESTION)


@pytest.mark.anyio
async def test_the_asynchronous_methods_say_the_same(options: dict[str, Any], llm: ChatOpenAI) -> None:
    async with httpx2.AsyncClient() as http:  # what it would keep by itself outlives the loop
        allm = ChatOpenAI(**options, http_async_client=http)
        assert (await allm.ainvoke(QUESTION)).text == llm.invoke(QUESTION).text
        assert whole([chunk async for chunk in allm.astream(QUESTION)]).text == llm.invoke(QUESTION).text
