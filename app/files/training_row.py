"""Is this line a valid training row? The wire contract's rules, one small function each."""

from typing import Any

import orjson

from app.nesting import count_openings

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_DEPTH = 100  # whatever reads the row later recurses: keep far from its limits
MISSING: Any = object()
KINDS = {str: "string", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
KINDS |= {type(None): "null", type(MISSING): "nothing"}

# What orjson says, where it can be said more plainly.
UNFINISHED = "unexpected end of data"
PLAINLY = {
    UNFINISHED: "the JSON breaks off before the end of the line; each row must be one object on one line",
    "unexpected content after document": "more than one JSON value on the line",
    "depth limit exceeded": "nested too deeply",
    "no low surrogate in string": "half of a surrogate pair (\\ud800 to \\udfff) in a string",
    "str is not valid UTF-8: surrogates not allowed": "not valid UTF-8",
    "number is infinity when parsed as double": "a number is too large",
}
FOREIGN_ROWS = {
    "a prompt/completion row": {"prompt", "completion"},
    "a preference pair": {"chosen", "rejected"},
    "a preference pair of OpenAI's": {"preferred_output", "non_preferred_output"},
    "a ShareGPT row": {"conversations"},
    "an instruction row": {"instruction", "output"},
    "a plain-text row": {"text"},
}


class RowError(ValueError):
    """The first thing that is wrong with a row, in words for the one who wrote it."""

    is_unfinished = False


def parse(line: bytes) -> Any:
    """The line's JSON value, held to what every later reader can take."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _unreadable(line, error) from None
    # Counting is cheap, walking is not: walk only what could be too deep or hold a NUL.
    if count_openings(line) > MAX_DEPTH or b"\\u0000" in line:
        _check_values(value)
    return value


def check_row(row: Any) -> None:
    """Raise RowError if a parsed line is not a row to learn from."""
    if not isinstance(row, dict):
        raise RowError(f"must be an object (got {_kind(row)})")
    if "messages" not in row:
        raise RowError(_without_messages(row))
    _check_messages(row["messages"])
    _check_tools(row.get("tools"))
    parallel = row.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise RowError(f"parallel_tool_calls must be a boolean (got {_kind(parallel)})")


def _unreadable(line: bytes, error: orjson.JSONDecodeError) -> RowError:
    if b"\x00" in line:
        return RowError("a NUL byte in the line: this is not plain text")
    plainly = PLAINLY.get(error.msg)
    problem = RowError(plainly or f"not valid JSON: {error.msg} (column {error.colno})")
    problem.is_unfinished = error.msg == UNFINISHED
    return problem


def _check_values(value: Any) -> None:
    """Walks without recursion, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(part, str) and "\x00" in part for part in level):
            raise RowError("a NUL character (\\u0000) in a string")
        level = [inner for part in level for inner in _parts(part)]
        if not level:
            return
    raise RowError("nested too deeply")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _kind(value: Any) -> str:
    return KINDS[type(value)]


def _without_messages(row: dict[str, Any]) -> str:
    for name, keys in FOREIGN_ROWS.items():
        if keys <= row.keys():
            return f'messages is missing: this is {name}, and {{"messages": [...]}} is needed'
    return "messages is missing"


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        got = "an empty one" if messages == [] else _kind(messages)
        raise RowError(f"messages must be a list of messages (got {got})")
    call_ids: set[str | None] = set()
    weights = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        role = _checked_role(message, where)
        if role == "assistant":
            _check_assistant(message, where)
            if message.get("tool_calls"):
                call_ids.update(call.get("id") for call in message["tool_calls"])
            weights.append(message.get("weight"))
        else:
            _check_content(message.get("content", MISSING), where)
            if role == "tool":
                _check_tool_result(message, where, call_ids)
    _check_something_to_learn(weights)


def _checked_role(message: Any, where: str) -> str:
    if not isinstance(message, dict):
        raise RowError(f"{where} must be an object (got {_kind(message)})")
    role = message.get("role", MISSING)
    if role in ROLES:
        return str(role)
    got = "another word" if isinstance(role, str) else _kind(role)
    raise RowError(f"{where}.role must be one of {', '.join(ROLES)} (got {got})")


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise RowError(f"{where}.content must be a string or a list of text parts (got {_kind(content)})")
    for i, part in enumerate(content):
        _check_part(part, f"{where}.content[{i}]")


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise RowError(f"{where} must be a text part (got {_kind(part)})")
    if part.get("type") != "text":
        raise RowError(f"{where} must be a text part: images, sound and files cannot be trained on")
    if not isinstance(part.get("text"), str):
        raise RowError(f"{where}.text must be a string (got {_kind(part.get('text', MISSING))})")


def _check_assistant(message: dict[str, Any], where: str) -> None:
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None:
        _check_content(content, where)
    if not calls and not _has_text(content) and not _is_unlearned(message):
        raise RowError(f"{where} is an assistant message without content or tool calls")
    if calls is not None:
        _check_calls(calls, f"{where}.tool_calls")
    weight = message.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowError(f"{where}.weight must be 0 or 1")


def _is_unlearned(message: dict[str, Any]) -> bool:
    weight = message.get("weight")
    return weight == 0 and not isinstance(weight, bool)


def empty_turns(row: dict[str, Any]) -> list[int]:
    """Where a checked row has assistant messages that say nothing; only unlearned ones may."""
    return [
        i
        for i, message in enumerate(row["messages"])
        if message.get("weight") == 0 and not message.get("tool_calls") and not _has_text(message.get("content"))
    ]


def _has_text(content: Any) -> bool:
    if isinstance(content, list):
        return any(part["text"].strip() for part in content)
    return bool(content and content.strip())


def _check_calls(calls: Any, where: str) -> None:
    if not isinstance(calls, list):
        raise RowError(f"{where} must be a list (got {_kind(calls)})")
    for i, call in enumerate(calls):
        _check_call(call, f"{where}[{i}]")


def _check_call(call: Any, where: str) -> None:
    if not isinstance(call, dict):
        raise RowError(f"{where} must be an object (got {_kind(call)})")
    call_id = call.get("id")
    if call_id is not None and not isinstance(call_id, str):
        raise RowError(f"{where}.id must be a string (got {_kind(call_id)})")
    if call.get("type", "function") != "function":
        raise RowError(f"{where}.type must be function")
    function = call.get("function", MISSING)
    _check_function(function, f"{where}.function")
    _check_arguments(function.get("arguments", MISSING), f"{where}.function.arguments")


def _check_function(function: Any, where: str) -> None:
    if not isinstance(function, dict):
        raise RowError(f"{where} must be an object (got {_kind(function)})")
    name = function.get("name", MISSING)
    if not isinstance(name, str) or not name:
        raise RowError(f"{where}.name must be a name (got {_kind(name) if name else 'an empty string'})")


def _check_arguments(arguments: Any, where: str) -> None:
    """OpenAI's form is a string that holds a JSON object; the object itself is taken too."""
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments.encode())
        except RowError as problem:
            raise RowError(f"{where} must be JSON: {problem}") from None
    if not isinstance(arguments, dict):
        raise RowError(f"{where} must be a JSON object (got {_kind(arguments)})")


def _check_tool_result(message: dict[str, Any], where: str, call_ids: set[str | None]) -> None:
    call_id = message.get("tool_call_id")
    if call_id is not None and not isinstance(call_id, str):
        raise RowError(f"{where}.tool_call_id must be a string (got {_kind(call_id)})")
    if not call_ids or (call_id is not None and call_id not in call_ids):
        raise RowError(f"{where} is a tool result without a tool call before it that has its tool_call_id")


def _check_something_to_learn(weights: list[Any]) -> None:
    if not weights:
        raise RowError("messages has no assistant message to learn from")
    if weights.count(0) == len(weights):
        raise RowError("every assistant message has weight 0: nothing is left to learn from")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise RowError(f"tools must be a list (got {_kind(tools)})")
    for i, tool in enumerate(tools):
        _check_tool(tool, f"tools[{i}]")


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict):
        raise RowError(f"{where} must be an object (got {_kind(tool)})")
    if tool.get("type", "function") != "function":
        raise RowError(f"{where}.type must be function")
    if "function" in tool:  # OpenAI's form; else flat
        tool, where = tool["function"], f"{where}.function"
    _check_function(tool, where)
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise RowError(f"{where}.parameters must be an object (got {_kind(parameters)})")
