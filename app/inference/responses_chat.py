"""A Responses request as the body of a chat completion, which is what the engine speaks."""

from collections.abc import Callable, Sequence
from typing import Any

from app.errors import BadRequest
from app.inference.chat_request import THINKING_BUDGETS
from app.inference.responses_items import COMPACTION, REFERENCE, SEALED, Item, items_and_references
from app.inference.responses_request import ResponseCreate, TextFormat
from app.inference.responses_tools import chat_tools

Message = dict[str, Any]
Unseal = Callable[[str], list[Item]]

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
)
# Chat takes these as they are, and judges them.
AS_IN_CHAT = ("chat_template_kwargs", "thinking_mode", *THINKING_BUDGETS, "gpu_preference", "extra_headers")


def to_chat(request: ResponseCreate, history: Sequence[Item], unseal: Unseal) -> dict[str, Any]:
    """The chat body, without `stream`. `history`: the items of the conversation so far, oldest first.

    `unseal` gives the items that stand in an item's encrypted content.
    """
    return {
        "model": request.model,
        "messages": _messages(request, history, unseal),
        **_settings(request),
        **chat_tools(request),
        **_response_format(request.text.format),
        **_logprobs(request),
    }


def _settings(request: ResponseCreate) -> dict[str, Any]:
    given = {name: getattr(request, name) for name in (*SAMPLING, *AS_IN_CHAT)}
    asked = {
        **given,
        "max_completion_tokens": request.token_limit,
        "n": request.n_samples,
        "reasoning_effort": request.reasoning.effort,
    }
    return {name: value for name, value in asked.items() if value not in (None, {})}


def _response_format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = wanted.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _logprobs(request: ResponseCreate) -> dict[str, Any]:
    # The best of several is told by its log-probabilities, asked for or not.
    if not request.wants_logprobs and request.n_samples == request.n:
        return {}
    return {"logprobs": True, "top_logprobs": request.top_logprobs}


def _messages(request: ResponseCreate, history: Sequence[Item], unseal: Unseal) -> list[Message]:
    added = items_and_references(request)
    sealed = [*history, *(item for item in added if item["type"] != REFERENCE)]
    items = [each for item in sealed for each in _unsealed(item, unseal)]
    _check_calls(items)
    messages: list[Message] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    for item in items:
        _add(messages, item)
    if not messages:
        raise BadRequest("There is nothing to answer: the input says nothing.", param="input")
    is_window = any(item["type"] == COMPACTION for item in sealed)
    return _with_one_system_message(with_questions_joined(messages) if is_window else messages)


def with_questions_joined(messages: list[Message]) -> list[Message]:
    """In what is left of a compacted conversation questions follow each other, where some templates want turns."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            joined[-1] = {**message, "content": [*_as_parts(joined[-1]["content"]), *_as_parts(message["content"])]}
        else:
            joined.append(message)
    return joined


def _as_parts(content: str | list[Item]) -> list[Item]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _unsealed(item: Item, unseal: Unseal) -> list[Item]:
    """What is sealed is what counts: what a client shows beside it, anybody may have written."""
    return unseal(item[SEALED]) if SEALED in item else [item]


def _check_calls(items: list[Item]) -> None:
    called: set[str] = set()
    for item in items:
        if item["type"] == "function_call":
            called.add(item["call_id"])
        if item["type"] == "function_call_output" and item["call_id"] not in called:
            raise BadRequest("No tool call found for a function call output's call_id.", param="input")


def _add(messages: list[Message], item: Item) -> None:
    match item["type"]:
        case "reasoning":
            _add_reasoning(messages, item)
        case "function_call":
            _add_call(messages, item)
        case "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _text(item["output"])})
        case "message" if item["role"] == "assistant":
            _add_answer(messages, item)
        case "message":
            # Many templates leave a developer's message out without a word.
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": _content(item["content"])})


def _add_reasoning(messages: list[Message], item: Item) -> None:
    reasoning = _text(item.get("content") or [])
    if reasoning:
        messages.append({"role": "assistant", "content": "", "reasoning": reasoning})


def _add_answer(messages: list[Message], item: Item) -> None:
    """Into the message that its reasoning opened, else a message of its own."""
    text = _text(item["content"])
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and not last["content"] and not last.get("tool_calls"):
        last["content"] = text
    else:
        messages.append({"role": "assistant", "content": text})


def _add_call(messages: list[Message], item: Item) -> None:
    """Calls belong to the assistant message before them."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(parts: list[Item]) -> str | list[dict[str, str]]:
    """Several parts stay several: how they are joined is the template's affair."""
    if len(parts) == 1:
        return _text(parts)
    return [{"type": "text", "text": part["text"]} for part in parts]


def _text(content: str | list[Item]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in content)


def _with_one_system_message(messages: list[Message]) -> list[Message]:
    """Templates that know a system message want one, and at the top."""
    n_leading = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    if n_leading < 2:
        return messages
    contents = [message["content"] for message in messages[:n_leading]]
    texts = [c if isinstance(c, str) else "\n".join(part["text"] for part in c) for c in contents]
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[n_leading:]]
