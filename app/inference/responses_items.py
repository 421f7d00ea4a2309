"""A Responses request's input as items in one canonical form, each with an id: what is stored and listed."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from app.errors import BadRequest
from app.inference.bounds import MAX_MESSAGES, UnsupportedInput
from app.inference.responses_ids import item_id
from app.inference.responses_request import ResponseCreate

Item = dict[str, Any]

ROLES = ("user", "assistant", "system", "developer", "tool")
TEXT_PARTS = ("input_text", "output_text", "text")
PHASES = ("commentary", "final_answer")
REFERENCE = "item_reference"
COMPACTION = "compaction"
SEALED = "encrypted_content"


def input_items(request: ResponseCreate, response_id: str) -> list[Item]:
    """What this request adds to the conversation. References add nothing: they point at what is there."""
    items = [item for item in items_and_references(request) if item["type"] != REFERENCE]
    return [
        {**item, "id": item["id"] or item_id(item["type"], response_id, "i", index)} for index, item in enumerate(items)
    ]


def is_reference(given: Any) -> bool:
    return isinstance(given, dict) and _kind_of(given) == REFERENCE and isinstance(given.get("id"), str)


def items_and_references(request: ResponseCreate) -> list[Item]:
    """`input`, or else `messages`, which are taken in chat's form too. The id of a new item is still empty.

    None where a conversation is to go on by itself.
    """
    name = request.asked_in
    asked = getattr(request, name)
    if isinstance(asked, str):
        return [message_item("user", asked)]
    if not asked and isinstance(asked, list | None) and request.previous_response_id:
        return []
    if asked is None:
        raise BadRequest("Missing required parameter: input.", param="input", code="missing_required_parameter")
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_MESSAGES:
        raise BadRequest(f"{name} must be a string or a list of 1 to {MAX_MESSAGES} items.", param=name)
    items = [item for i, given in enumerate(asked) for item in _items_of(given, f"{name}[{i}]")]
    _check_ids(items, name)
    return items


def _check_ids(items: list[Item], name: str) -> None:
    """Lists of items are paged by their ids."""
    ids = Counter(item["id"] for item in items if item["type"] != REFERENCE and item["id"])
    twice = next((item_id for item_id, count in ids.items() if count > 1), None)
    if twice:
        raise BadRequest(f"{name}: two items have the id '{twice}'; leave one of them out.", param=name)


def message_item(role: str, content: str | list[Any]) -> Item:
    parts = [_text_part(role, content)] if isinstance(content, str) else content
    return {"id": "", "type": "message", "role": role, "status": "completed", "content": parts}


def _items_of(given: Any, where: str) -> list[Item]:
    if not isinstance(given, dict):
        raise BadRequest(f"{where} must be an object.", param=where)
    kind = _kind_of(given)
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise UnsupportedInput(
            f"{where}: a text model takes items of type {', '.join(READERS)} only.", param=f"{where}.type"
        )
    return reader(given, where)


def _kind_of(given: Item) -> Any:
    return given.get("type") or ("message" if "role" in given else REFERENCE if "id" in given else None)


def _message(given: Item, where: str) -> list[Item]:
    role = given.get("role")
    if role not in ROLES:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    if role == "tool":
        return _call_output({**given, "call_id": given.get("tool_call_id"), "output": given.get("content")}, where)
    calls = _chat_calls(given, where)
    content = given.get("content")
    if calls and not content:
        return calls
    parts = _parts(content, role, f"{where}.content")
    item = {**message_item(role, parts), **_phase(given, role)}
    return [_with_given_id(item, given), *calls]


def _phase(given: Item, role: str) -> Item:
    """What an earlier answer was: on the way to the final one, or that one."""
    return {"phase": given["phase"]} if role == "assistant" and given.get("phase") in PHASES else {}


def _chat_calls(given: Item, where: str) -> list[Item]:
    """The tool calls of an assistant message in chat's form."""
    calls = given.get("tool_calls") or []
    if not isinstance(calls, list):
        raise BadRequest(f"{where}.tool_calls must be a list.", param=f"{where}.tool_calls")
    items: list[Item] = []
    for i, call in enumerate(calls):
        path = f"{where}.tool_calls[{i}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BadRequest(f"{path}.function must be an object.", param=f"{path}.function")
        items += _call({**function, "call_id": call.get("id")}, path)
    return items


def _call(given: Item, where: str) -> list[Item]:
    item = {"id": "", "type": "function_call", "status": "completed"}
    fields = {name: _string(given, name, where) for name in ("call_id", "name", "arguments")}
    return [_with_given_id({**item, **fields}, given)]


def _call_output(given: Item, where: str) -> list[Item]:
    item = {"id": "", "type": "function_call_output", "status": "completed"}
    output = given.get("output")
    if not isinstance(output, str):
        output = _parts(output, "tool", f"{where}.output")
    return [_with_given_id({**item, "call_id": _string(given, "call_id", where), "output": output}, given)]


def _reasoning(given: Item, where: str) -> list[Item]:
    """Its texts are kept, and what of it is sealed, which stays so until the model is to read it."""
    item = {"id": "", "type": "reasoning", "status": "completed"}
    summary = _texts(given.get("summary"), "summary_text")
    content = _texts(given.get("content"), "reasoning_text")
    hidden = {SEALED: _string(given, SEALED, where)} if given.get(SEALED) else {}
    return [_with_given_id({**item, "summary": summary, "content": content, **hidden}, given)]


def _texts(parts: Any, kind: str) -> list[Item]:
    known = [p for p in parts if isinstance(p, dict) and p.get("type") == kind] if isinstance(parts, list) else []
    return [{"type": kind, "text": part["text"]} for part in known if isinstance(part.get("text"), str)]


def _compaction(given: Item, where: str) -> list[Item]:
    """Stays sealed until the model is to read it."""
    item = {"id": "", "type": COMPACTION}
    return [_with_given_id({**item, SEALED: _string(given, SEALED, where)}, given)]


def _reference(given: Item, where: str) -> list[Item]:
    return [{"type": REFERENCE, "id": _string(given, "id", where)}]


READERS: Mapping[str, Callable[[Item, str], list[Item]]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _call_output,
    "reasoning": _reasoning,
    COMPACTION: _compaction,
    REFERENCE: _reference,
}


def _parts(content: Any, role: str, where: str) -> list[Item]:
    if isinstance(content, str):
        return [_text_part(role, content)]
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be a string or a list of text parts.", param=where)
    return [_part(part, role, f"{where}[{i}]") for i, part in enumerate(content)]


def _part(part: Any, role: str, where: str) -> Item:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "refusal" and role == "assistant":
        return {"type": "refusal", "refusal": _string(part, "refusal", where)}
    if kind not in TEXT_PARTS:
        raise UnsupportedInput(
            f"{where}: this is a text model; images, sound and files cannot be sent to it.", param=where
        )
    return _text_part(role, _string(part, "text", where))


def _text_part(role: str, text: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _string(fields: Item, name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{where}.{name} must be a string.", param=f"{where}.{name}")
    return value


def _with_given_id(item: Item, given: Item) -> Item:
    """An item sent back to us keeps the id that we gave it."""
    given_id = given.get("id")
    return {**item, "id": given_id} if isinstance(given_id, str) and 0 < len(given_id) <= 64 else item
