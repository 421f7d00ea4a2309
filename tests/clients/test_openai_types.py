"""The `openai` package's typed helpers: tools from Pydantic, events of a stream, asynchronous parsing."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, LengthFinishReasonError, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionMessageParam

from tests.asking import MODEL
from tests.clients.typed import City, GetWeather

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How is the weather in Rome?"}]
TOOL = pydantic_function_tool(GetWeather, name="get_weather")
ANY_TOOL: Any = TOOL  # Responses take it as it is, though their types do not say so


@pytest.fixture(scope="module")
def openai(reach: dict[str, Any]) -> Iterator[OpenAI]:
    with OpenAI(**reach) as client:
        yield client


@pytest.fixture
async def aopenai(reach: dict[str, Any]) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(**reach) as client:
        yield client


def test_a_tool_call_is_parsed_into_its_type(openai: OpenAI) -> None:
    choice = openai.chat.completions.parse(model=MODEL, messages=QUESTION, tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_a_tools_answer_comes_back_into_the_conversation(openai: OpenAI) -> None:
    called = openai.chat.completions.create(model=MODEL, messages=QUESTION, tools=[TOOL]).choices[0].message
    [call] = called.tool_calls or []
    told: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    again: Any = [*QUESTION, called.to_dict(), told]
    final = openai.chat.completions.create(model=MODEL, messages=again, tools=[TOOL]).choices[0]
    assert final.finish_reason == "stop"
    assert "Sunny" in (final.message.content or "")


def test_a_streamed_tool_call_is_told_piece_by_piece(openai: OpenAI) -> None:
    with openai.chat.completions.stream(model=MODEL, messages=QUESTION, tools=[TOOL]) as stream:
        events = list(stream)
    pieces = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    [done] = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert len(pieces) > 1
    assert "".join(event.arguments_delta for event in pieces) == done.arguments
    assert isinstance(done.parsed_arguments, GetWeather)


def test_a_streamed_answer_is_parsed_into_its_type(openai: OpenAI) -> None:
    with openai.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=City, logprobs=True) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    [done] = [event for event in events if event.type == "content.done"]
    assert isinstance(done.parsed, City)
    assert {"content.delta", "logprobs.content.delta", "logprobs.content.done"} <= set(kinds)


def test_what_is_cut_before_its_end_is_not_parsed(openai: OpenAI) -> None:
    with pytest.raises(LengthFinishReasonError):
        openai.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City, max_completion_tokens=2)


def test_several_choices_are_streamed_side_by_side(openai: OpenAI) -> None:
    with openai.chat.completions.stream(model=MODEL, messages=QUESTION, n=3) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert [choice.index for choice in final.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in final.choices}) == 3


def test_a_response_calls_a_tool_and_goes_on_with_its_answer(openai: OpenAI) -> None:
    first = openai.responses.parse(model=MODEL, input="How is the weather in Rome?", tools=[ANY_TOOL])
    [call] = [item for item in first.output if item.type == "function_call"]
    assert isinstance(call.parsed_arguments, GetWeather)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    final = openai.responses.create(model=MODEL, input=[output], previous_response_id=first.id, tools=[ANY_TOOL])
    assert "Sunny" in final.output_text


def test_a_responses_stream_tells_a_tool_call_piece_by_piece(openai: OpenAI) -> None:
    with openai.responses.stream(model=MODEL, input="How is the weather in Rome?", tools=[ANY_TOOL]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    [call] = [item for item in final.output if item.type == "function_call"]
    assert "".join(pieces) == call.arguments
    assert len(pieces) > 1


def test_a_responses_stream_is_parsed_into_its_type(openai: OpenAI) -> None:
    with openai.responses.stream(model=MODEL, input="Where?", text_format=City) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, City)


@pytest.mark.anyio
async def test_the_asynchronous_client_parses_and_streams_the_same(aopenai: AsyncOpenAI, openai: OpenAI) -> None:
    parsed = await aopenai.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City)
    async with aopenai.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=City) as stream:
        streamed = await stream.get_final_completion()
    once = openai.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City)
    assert parsed.choices[0].message.parsed == streamed.choices[0].message.parsed == once.choices[0].message.parsed
    response = await aopenai.responses.parse(model=MODEL, input="Where?", text_format=City)
    assert isinstance(response.output_parsed, City)
