"""Tools, judged without an engine."""

from typing import Any

import pytest

from app.errors import BadRequest
from app.inference.bounds import check_answers_asked, check_takes_tools, check_tool_choice, check_tools
from tests.rows import CATALOG


def test_the_tool_that_is_wrong_is_named() -> None:
    good = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(BadRequest) as refusal:
        check_tools([good, {"type": "mcp", "server_url": "http://127.0.0.1"}])
    assert refusal.value.param == "tools[1]"


@pytest.mark.parametrize("modalities", [None, ["text"], [], 5, True, {"audio": 1}])
def test_who_asks_for_text_or_for_nonsense_is_given_text(modalities: Any) -> None:
    check_answers_asked({"modalities": modalities})


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


ANY = function()
GOOD_FUNCTIONS: dict[str, dict[str, Any]] = {
    "no parameters": {},
    "null parameters": {"parameters": None},
    "empty parameters": {"parameters": {}},
    "every sign of a name": {"name": "aZ09_-" + "x" * 58},
    "all there is": {"description": "d", "strict": True, "parameters": {"type": "object", "properties": {}}},
    "what is not enforced, not strict": {"parameters": {"type": "object", "properties": {"a": {"not": {}}}}},
    "a pattern that is not enforced": {"parameters": {"properties": {"a": {"type": "string", "pattern": "(?!x)"}}}},
    "a tree": {"parameters": {"properties": {"child": {"$ref": "#"}}}},
}
BAD_FUNCTIONS: dict[str, tuple[Any, str]] = {
    "a string": ("f", ""),
    "no name": ({}, ""),
    "a name that is a number": ({"name": 5}, ".name"),
    "an empty name": ({"name": ""}, ".name"),
    "a name with a space": ({"name": "get weather"}, ".name"),
    "a name with a dot": ({"name": "a.b"}, ".name"),
    "a name ending in a line": ({"name": "f\n"}, ".name"),
    "a name of 65": ({"name": "x" * 65}, ".name"),
    "an accented name": ({"name": "météo"}, ".name"),
    "a description that is a list": ({"name": "f", "description": []}, ".description"),
    "strict as a word": ({"name": "f", "strict": "yes"}, ".strict"),
    "parameters that are a list": ({"name": "f", "parameters": []}, ".parameters"),
    "parameters that are a string": ({"name": "f", "parameters": "{}"}, ".parameters"),
    "parameters that are no object": ({"name": "f", "parameters": {"type": "string"}}, ".parameters"),
    "an unknown type": ({"name": "f", "parameters": {"type": "strnig"}}, ".parameters"),
    "properties as a list": ({"name": "f", "parameters": {"type": "object", "properties": []}}, ".parameters"),
    "what cannot be enforced, strict": (
        {"name": "f", "strict": True, "parameters": {"type": "object", "not": {}}},
        ".parameters",
    ),
}


@pytest.mark.parametrize("fields", GOOD_FUNCTIONS.values(), ids=GOOD_FUNCTIONS.keys())
def test_a_well_formed_function_passes(fields: dict[str, Any]) -> None:
    check_tools([function(**fields)])


@pytest.mark.parametrize(("inner", "where"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS.keys())
def test_a_malformed_function_is_refused_by_name(inner: Any, where: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_tools([{"type": "function", "function": inner}])
    assert refusal.value.param == f"tools[0].function{where}"


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(BadRequest, match="used twice") as refusal:
        check_tools([ANY, function(name="g"), ANY])
    assert refusal.value.param == "tools[2].function.name"


NAMED = {"type": "function", "function": {"name": "f"}}


def allowed(mode: Any, tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (None, None),
        (None, "none"),
        ([ANY], None),
        ([ANY], "none"),
        ([ANY], "auto"),
        ([ANY], "required"),
        ([ANY], NAMED),
        ([ANY, function(name="g")], allowed("auto", [NAMED])),
        ([ANY], allowed("required", [NAMED, NAMED])),
    ],
)
def test_a_choice_that_the_tools_offer_passes(tools: Any, choice: Any) -> None:
    check_tool_choice(tools, choice)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (None, "auto"),
        (None, "required"),
        ([], NAMED),
        ([ANY], "any"),
        ([ANY], {}),
        ([ANY], {"type": "function"}),
        ([ANY], {"type": "function", "function": {}}),
        ([ANY], {"type": "function", "function": {"name": "g"}}),
        ([ANY], {"type": "tool", "function": {"name": "f"}}),
        (["f", {"function": 5}], NAMED),
        ([ANY], {"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}),
        ([ANY], allowed("none", [NAMED])),
        ([ANY], allowed(["auto"], [NAMED])),
        ([ANY], allowed("auto", [])),
        ([ANY], allowed("auto", ["f"])),
        ([ANY], allowed("auto", [NAMED, {"type": "function", "function": {"name": "g"}}])),
        (None, allowed("auto", [NAMED])),
    ],
)
def test_a_choice_that_the_tools_do_not_offer_is_refused(tools: Any, choice: Any) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_tool_choice(tools, choice)
    assert refusal.value.param == "tool_choice"


def test_a_model_whose_calls_cannot_be_read_takes_no_tools() -> None:
    deaf = CATALOG.models[0]
    with pytest.raises(BadRequest, match="names no tool_parser") as refusal:
        check_takes_tools(deaf, [ANY], None)
    assert refusal.value.param == "tools"
    check_takes_tools(deaf, None, None)
    check_takes_tools(deaf, [ANY], "none")
    check_takes_tools(deaf.model_copy(update={"tool_parser": "hermes"}), [ANY], "auto")
