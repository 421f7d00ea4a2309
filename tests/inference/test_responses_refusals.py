"""What POST /responses refuses is told by the fields that its client sent, though chat completions judge most of it."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import ok, refused
from tests.conformance.cases import response_asked

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
TOO_LONG = ["word " * 60_000, "word " * 5_000]
MESSAGE = {"role": "user", "content": "Hi", "id": "msg_1"}


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, **fields}


def text(**fields: Any) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "n", "schema": {}, **fields}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a schema that no grammar holds": ({"text": text(schema={"not": {}})}, "text.format.schema"),
    "a name with a blank in it": ({"text": text(name="a b")}, "text.format.name"),
    "a format of no name": ({"text": text(name="")}, "text.format.name"),
    "a function's name": ({"tools": [function("a b")]}, "tools[0].name"),
    "a function's long name": ({"tools": [function("f" * 65)]}, "tools[0].name"),
    "a function twice": ({"tools": [function(), function()]}, "tools[1].name"),
    "a function's parameters": ({"tools": [function(parameters={"type": "array"})]}, "tools[0].parameters"),
    "a function that nobody has": (
        {"tools": [function()], "tool_choice": {"type": "function", "name": "g"}},
        "tool_choice",
    ),
    "far too long a text": ({"input": TOO_LONG[0]}, "input"),
    "too long a text": ({"input": TOO_LONG[1]}, "input"),
    "nothing but an empty thought": ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    "two items of one id": ({"input": [MESSAGE, MESSAGE]}, "input"),
    "an end that is everywhere": ({"stop": ""}, "stop"),
}


@pytest.mark.parametrize(("fields", "param"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("streams", [False, True])
async def test_the_field_that_is_wrong_is_named(
    client: AsyncClient, fields: dict[str, Any], param: str, streams: bool
) -> None:
    answer = await client.post(PATH, json=response_asked({**fields, "stream": streams}))
    code = "context_length_exceeded" if fields.get("input", "") in TOO_LONG else None
    told = refused(answer, 400, param=param, code=code)["detail"]
    assert not [word for word in ("response_format", "messages[", ".function", "parameter=") if word in told]


@pytest.mark.parametrize("previous", ["", " ", "resp_that_never_was"])
async def test_a_previous_response_that_is_not_there_is_refused(client: AsyncClient, previous: str) -> None:
    answer = await client.post(PATH, json=response_asked({"previous_response_id": previous}))
    refused(answer, 400, param="previous_response_id", code="previous_response_not_found")


async def test_an_item_by_reference_may_stand_beside_others(client: AsyncClient) -> None:
    first = ok(await client.post(PATH, json=response_asked({"input": [MESSAGE]})))
    again = {"input": [{"type": "item_reference", "id": first["output"][0]["id"]}, MESSAGE]}
    ok(await client.post(PATH, json=response_asked(again)))
