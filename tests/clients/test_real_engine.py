"""The same clients over the real vLLM, where the grammar makes the answer valid whatever the model would say."""

from collections.abc import Iterator
from typing import Any

import instructor
import pytest
from langchain_openai import ChatOpenAI
from openai import OpenAI, pydantic_function_tool

from tests.asking import MODEL
from tests.clients.typed import Trip, Weather
from tests.servers import Server, TestOrg

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")]

ASKED = "What is the weather in Rome?"
QUESTION: Any = [{"role": "user", "content": ASKED}]


@pytest.fixture(scope="module")
def reach(real: Server, real_org: TestOrg) -> dict[str, Any]:
    return {"base_url": f"{real.url}/v1", "api_key": real_org.key}


@pytest.fixture(scope="module")
def openai(reach: dict[str, Any]) -> Iterator[OpenAI]:
    with OpenAI(**reach, timeout=180) as client:
        yield client


def test_openai_parses_answers_of_both_apis(openai: OpenAI) -> None:
    chat = openai.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Trip)
    response = openai.responses.parse(model=MODEL, input=ASKED, text_format=Trip)
    assert isinstance(chat.choices[0].message.parsed, Trip)
    assert isinstance(response.output_parsed, Trip)


def test_openai_streams_a_required_tool_call(openai: OpenAI) -> None:
    tools = [pydantic_function_tool(Weather)]
    with openai.chat.completions.stream(model=MODEL, messages=QUESTION, tools=tools, tool_choice="required") as stream:
        [done, *_] = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert isinstance(done.parsed_arguments, Weather)


@pytest.mark.parametrize("use_responses_api", [False, True], ids=["chat completions", "responses"])
@pytest.mark.parametrize(("method", "wanted"), [("json_schema", Trip), ("function_calling", Weather)])
def test_langchain_makes_an_answer_into_a_type(
    reach: dict[str, Any], method: Any, wanted: type[Trip | Weather], use_responses_api: bool
) -> None:
    llm = ChatOpenAI(**reach, model=MODEL, use_responses_api=use_responses_api)
    structured = llm.with_structured_output(wanted, method=method)
    assert isinstance(structured.invoke(ASKED), wanted)
    *_, last = structured.stream(ASKED)
    assert isinstance(last, wanted)


@pytest.mark.parametrize(
    ("mode", "wanted"), [(instructor.Mode.TOOLS, Weather), (instructor.Mode.JSON_SCHEMA, Trip)], ids=["tools", "schema"]
)
def test_instructor_makes_an_answer_into_a_type(
    openai: OpenAI, mode: instructor.Mode, wanted: type[Trip | Weather]
) -> None:
    client = instructor.from_openai(openai, mode=mode)
    assert isinstance(client.create(model=MODEL, messages=QUESTION, response_model=wanted, max_retries=0), wanted)
    *_, last = client.create_partial(model=MODEL, messages=QUESTION, response_model=wanted)
    wanted.model_validate(last.model_dump())
