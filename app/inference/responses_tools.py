"""The tools of a Responses request: Responses' flat form in, chat's nested form out."""

from typing import Any

from app.errors import BadRequest
from app.inference.bounds import UnsupportedInput
from app.inference.responses_request import ResponseCreate

Tool = dict[str, Any]

OPTIONS = ("none", "auto", "required")
FIELDS: dict[str, type | tuple[type, ...]] = {"description": str, "parameters": dict, "strict": bool}


def flat_tools(request: ResponseCreate) -> list[Tool]:
    """Function tools as Responses show them; chat's nested form is read too."""
    return [_flat_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]


def flat_tool_choice(request: ResponseCreate) -> Any:
    """The choice as Responses show it."""
    choice = request.tool_choice
    if isinstance(choice, str) and choice in OPTIONS:
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "name": _name_in(choice)}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed_tools(choice)
    raise UnsupportedInput(
        "tool_choice must be none, auto, required, a function, or allowed_tools.", param="tool_choice"
    )


def chat_tools(request: ResponseCreate) -> dict[str, Any]:
    """The fields of a chat body that speak of tools; none without tools."""
    tools, choice = flat_tools(request), flat_tool_choice(request)
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        tools, choice = _allowed(tools, choice), choice["mode"]
    if not tools:
        return _without_tools(choice)
    if isinstance(choice, dict):
        _check_named(choice["name"], tools)
        choice = {"type": "function", "function": {"name": choice["name"]}}
    return {
        "tools": [_nested(tool) for tool in tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _flat_tool(tool: Tool, where: str) -> Tool:
    if tool.get("type", "function") != "function":
        raise UnsupportedInput(
            f"{where}: only function tools are supported; run other kinds yourself and offer them as functions.",
            param=f"{where}.type",
        )
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise BadRequest(f"{where}.name must be a string.", param=f"{where}.name")
    for field, kind in FIELDS.items():
        if function.get(field) is not None and not isinstance(function[field], kind):
            raise BadRequest(f"{where}.{field} has the wrong type.", param=f"{where}.{field}")
    return {"type": "function", "name": name, **{field: function.get(field) for field in FIELDS}}


def _nested(tool: Tool) -> Tool:
    fields = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": fields}


def _name_in(choice: dict[str, Any]) -> Any:
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else choice.get("name")


def _allowed_tools(choice: dict[str, Any]) -> dict[str, Any]:
    # Chat's form holds mode and tools one level down.
    inner = choice.get("allowed_tools", choice)
    mode, tools = (inner.get("mode", "auto"), inner.get("tools")) if isinstance(inner, dict) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, list):
        raise BadRequest("allowed_tools needs a mode (auto or required) and a list of tools.", param="tool_choice")
    names = [_name_in(tool) if isinstance(tool, dict) else None for tool in tools]
    return {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": name} for name in names]}


def _allowed(tools: list[Tool], choice: dict[str, Any]) -> list[Tool]:
    for tool in choice["tools"]:
        _check_named(tool["name"], tools)
    names = [tool["name"] for tool in choice["tools"]]
    return [tool for tool in tools if tool["name"] in names]


def _without_tools(choice: Any) -> dict[str, Any]:
    if choice not in ("auto", "none"):
        raise BadRequest("tool_choice asks for a tool, but tools is empty.", param="tool_choice")
    return {}


def _check_named(name: Any, tools: list[Tool]) -> None:
    if name not in [tool["name"] for tool in tools]:
        raise BadRequest("tool_choice names a function that is not among the tools.", param="tool_choice")
