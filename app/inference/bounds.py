"""What a request may ask of an engine: sizes and shapes, judged before the engine sees them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.catalog.spec import ModelSpec
from app.errors import BadRequest
from app.inference.schemas import check_schema

__all__ = ["check_schema", "check_takes_tools", "check_tool_choice", "check_tools"]

MAX_MESSAGES = 4096
MAX_TOOLS = 128
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UnsupportedInput(BadRequest):
    """Something that a text model, or this server, does not take."""


def check_answers_asked(body: Mapping[str, Any]) -> None:
    """Raises UnsupportedInput where a chat body asks for other answers than a text model gives here."""
    for field, instead in (("functions", "offer them as tools"), ("web_search_options", "offer a search as a tool")):
        if body.get(field) is not None:
            raise UnsupportedInput(f"{field} is not supported; {instead}.", param=field)
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        raise UnsupportedInput("modalities: this model answers in text only.", param="modalities")


def check_tools(tools: Sequence[Any] | None, param: str = "tools") -> None:
    """Raises BadRequest for anything but well-formed functions, each with a name of its own."""
    names: set[str] = set()
    for index, tool in enumerate(tools or ()):
        where = f"{param}[{index}]"
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise UnsupportedInput(f"{where}: only tools of type function are supported.", param=where)
        name = _check_function(tool.get("function"), f"{where}.function")
        if name in names:
            raise BadRequest(f"{where}.function.name: {name!r} is used twice.", param=f"{where}.function.name")
        names.add(name)


def _check_function(function: Any, where: str) -> str:
    """Its name."""
    name = function.get("name") if isinstance(function, Mapping) else None
    if name is None:
        raise BadRequest(f"{where}: must be an object with a name.", param=where)
    if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
        rule = "must be 1 to 64 letters, digits, underscores or dashes"
        raise BadRequest(f"{where}.name: {rule}.", param=f"{where}.name")
    for field, kind, word in (("description", str, "a string"), ("strict", bool, "true or false")):
        if not isinstance(function.get(field), kind | None):
            raise BadRequest(f"{where}.{field}: must be {word}.", param=f"{where}.{field}")
    _check_parameters(function.get("parameters"), f"{where}.parameters", is_held=function.get("strict") is True)
    return name


def _check_parameters(schema: Any, where: str, *, is_held: bool) -> None:
    """Arguments are held to what a grammar can say of them; all of it is asked for by `strict` only, as with OpenAI."""
    check_schema(schema, where, is_held=is_held)
    if schema and schema.get("type", "object") != "object":
        raise BadRequest(f"{where}: the schema must be of type object.", param=where)


def check_tool_choice(tools: Sequence[Any] | None, choice: Any) -> None:
    """Raises BadRequest for a choice that the tools do not offer."""
    if choice is None or choice == "none":
        return
    if not tools:
        raise BadRequest("tool_choice is only allowed when tools are given.", param="tool_choice")
    if choice in ("auto", "required"):
        return
    for name in allowed_names(choice) if is_allowed_tools(choice) else [_name_of(choice)]:
        if name not in _names_of(tools):
            raise BadRequest(f"tool_choice names {name[:64]!r}, which is not among the tools.", param="tool_choice")


def is_allowed_tools(choice: Any) -> bool:
    return isinstance(choice, Mapping) and choice.get("type") == "allowed_tools"


def allowed_names(choice: Mapping[str, Any]) -> list[str]:
    """Of the functions that `allowed_tools` are. Raises BadRequest."""
    allowed = choice.get("allowed_tools")
    mode, tools = (allowed.get("mode"), allowed.get("tools")) if isinstance(allowed, Mapping) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, list) or not tools:
        raise BadRequest("allowed_tools needs a mode (auto or required) and a list of tools.", param="tool_choice")
    return [_name_of(tool) for tool in tools]


def _name_of(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise BadRequest(
            "tool_choice must be none, auto, required, a function with its name, or allowed_tools.",
            param="tool_choice",
        )
    return name


def _names_of(tools: Sequence[Any]) -> list[Any]:
    functions = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    return [function.get("name") for function in functions if isinstance(function, Mapping)]


def check_takes_tools(model: ModelSpec, tools: Sequence[Any] | None, choice: Any) -> None:
    """Raises UnsupportedInput where tools may be called and the model's calls cannot be read."""
    if tools and choice != "none" and not model.tool_parser:
        raise UnsupportedInput(
            f"{model.id} does not call tools: its catalog entry names no tool_parser. "
            "Use a model that does, or leave tools out.",
            param="tools",
        )
