"""A chat's messages: what they must be, and what of them an engine is sent. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from app.errors import BadRequest
from app.inference.bounds import UnsupportedInput
from app.nesting import MAX_DEPTH, is_too_deep

PLAIN_ROLES = ("system", "user", "assistant", "tool", "function")
ROLES = ("developer", *PLAIN_ROLES)
MAY_BE_SILENT = frozenset({"assistant", "function"})
TEXTS = ("name", "tool_call_id", "reasoning", "reasoning_content")
# Whatever else clients write into their messages is no engine's business.
FORWARDED = ("content", *TEXTS)

Message = Mapping[str, Any]


def check_messages(messages: Sequence[Any]) -> None:
    """Raises BadRequest. Only text goes to a text model, so nothing is ever fetched for a message."""
    for index, message in enumerate(messages):
        if not _is_plain(message):
            _check_message(message, f"messages[{index}]")


def count_chars(messages: Sequence[Message]) -> int:
    """Of the text in messages that `check_messages` let pass."""
    contents = (message.get("content") or "" for message in messages)
    return sum(
        len(content) if isinstance(content, str) else sum(len(part.get("text") or "") for part in content)
        for content in contents
    )


def for_engine(message: Message) -> Message:
    """One that `check_messages` let pass."""
    if _is_plain(message):
        return message
    sent = {name: message[name] for name in FORWARDED if message.get(name) is not None}
    if isinstance(sent.get("content"), list):
        sent["content"] = [{"type": part["type"], part["type"]: part[part["type"]]} for part in sent["content"]]
    if message.get("tool_calls"):
        sent["tool_calls"] = [_call_for_engine(call) for call in message["tool_calls"]]
    # `developer` is OpenAI's newer word for `system`; most chat templates pass over a role they do not know.
    return {"role": "system" if message["role"] == "developer" else message["role"], **sent}


def _is_plain(message: Any) -> bool:
    """A role and a text alone, as most are."""
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and isinstance(message["content"], str)
        and message["role"] in PLAIN_ROLES
    )


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise UnsupportedInput(f"{where}: must be an object with a role of {', '.join(sorted(ROLES))}.", param=where)
    if message.get("content") is not None or message["role"] not in MAY_BE_SILENT:
        _check_content(message.get("content"), f"{where}.content")
    for name in TEXTS:
        if message.get(name) is not None:
            _check_text(message[name], f"{where}.{name}")
    if message.get("tool_calls") is not None:
        _check_calls(message["tool_calls"], f"{where}.tool_calls")


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise UnsupportedInput(f"{where}: must be a string or a list of text parts.", param=where)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            here = f"{where}[{index}]"
            raise UnsupportedInput(f"{here}: this model takes text only; a part must be of type text.", param=here)


def _check_text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: must be a string.", param=where)


def _check_calls(calls: Any, where: str) -> None:
    if not isinstance(calls, list):
        raise BadRequest(f"{where}: must be a list.", param=where)
    for index, call in enumerate(calls):
        here = f"{where}[{index}]"
        is_function = isinstance(call, Mapping) and call.get("type") in (None, "function")
        if not is_function or not isinstance(call.get("function"), Mapping):
            raise UnsupportedInput(f"{here}: must be an object of type function, with a function.", param=here)
        function = call["function"]
        _check_text(call.get("id"), f"{here}.id")
        _check_text(function.get("name"), f"{here}.function.name")
        _check_text(function.get("arguments"), f"{here}.function.arguments")
        _check_depth(function["arguments"], f"{here}.function.arguments")


def _check_depth(arguments: str, where: str) -> None:
    if is_too_deep(_parsed(arguments), arguments.encode()):
        raise BadRequest(f"{where}: nested more than {MAX_DEPTH} deep.", param=where)


def _call_for_engine(call: Message) -> dict[str, Any]:
    """Arguments that are no object are none: templates go through them by name."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    readable = arguments if isinstance(_parsed(arguments), dict) else "{}"
    return {"id": call["id"], "type": "function", "function": {"name": name, "arguments": readable}}


def _parsed(arguments: str) -> Any:
    """None for what is no JSON, or says nothing."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
