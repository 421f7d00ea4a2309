"""The Response object, as OpenAI's clients expect it: every field there, null where nothing is."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from app.ids import new_id
from app.inference.responses_items import Item
from app.inference.responses_request import ResponseCreate, TextFormat
from app.inference.responses_tools import flat_tool_choice, flat_tools

Response = dict[str, Any]
Status = Literal["queued", "in_progress"]

OPEN = "in_progress"

# The engine's reasons to stop short of an end, and what Responses call them.
CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}
ERROR_CODES = ("server_error", "rate_limit_exceeded", "invalid_prompt")
LOGPROB_FLOOR = -9999.0


def new_response(
    request: ResponseCreate, *, response_id: str, created_at: int, status: Status = "in_progress"
) -> Response:
    """The object before there is any output."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request.model,
        "output": [],
        "output_text": "",
        "usage": None,
        **_as_asked(request),
    }


def concluded(
    response: Response,
    output: list[Item],
    *,
    reasons: Iterable[str | None],
    usage: Mapping[str, Any] | None,
    completed_at: int,
) -> Response:
    cut = next((CUT_SHORT[reason] for reason in reasons if reason in CUT_SHORT), None)
    return {
        **response,
        **_with_output(output, usage),
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else completed_at,
        "incomplete_details": {"reason": cut} if cut else None,
    }


def failed(
    response: Response,
    output: list[Item],
    *,
    message: str,
    code: str | None,
    usage: Mapping[str, Any] | None = None,
) -> Response:
    """`code` is one of the few that clients know; any other is told as `server_error`."""
    known = code if code in ERROR_CODES else "server_error"
    error = {"code": known, "message": message}
    return {**response, **_with_output(output, usage), "status": "failed", "error": error}


def cancelled(response: Response, output: list[Item], *, usage: Mapping[str, Any] | None = None) -> Response:
    return {**response, **_with_output(output, usage), "status": "cancelled"}


def is_final(response: Response) -> bool:
    return response["status"] not in ("queued", OPEN)


def output_text(text: str, logprobs: list[Any]) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def new_message(item_id: str) -> Item:
    return {"id": item_id, "type": "message", "status": OPEN, "role": "assistant", "content": []}


def new_reasoning(item_id: str) -> Item:
    return {"id": item_id, "type": "reasoning", "status": OPEN, "summary": [], "content": []}


def new_call(item_id: str, call: Mapping[str, Any]) -> Item:
    """From the first delta of a tool call."""
    name = (call.get("function") or {}).get("name") or ""
    call_id = call.get("id") or new_id("call")
    item = {"id": item_id, "type": "function_call", "status": OPEN}
    return {**item, "call_id": call_id, "name": name, "arguments": ""}


def logprobs_of(choice: Mapping[str, Any]) -> list[Any]:
    """The log-probabilities of a choice or of a chunk's choice."""
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return [{**_logprob(t), "top_logprobs": [_logprob(top) for top in t.get("top_logprobs") or ()]} for t in tokens]


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Chat's usage under Responses' names."""
    if usage is None:
        return None
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    n_in, n_out = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": prompt.get("cached_tokens") or 0, "cache_write_tokens": 0},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": completion.get("reasoning_tokens") or 0},
        "total_tokens": n_in + n_out,
    }


def _as_asked(request: ResponseCreate) -> dict[str, Any]:
    return {
        "background": request.background,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "instructions": request.instructions,
        "max_output_tokens": request.token_limit,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata,
        "parallel_tool_calls": request.parallel_tool_calls,
        "presence_penalty": request.presence_penalty or 0.0,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.reasoning.effort, "summary": None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": _format(request.text.format), "verbosity": request.text.verbosity or "medium"},
        "tool_choice": flat_tool_choice(request),
        "tools": flat_tools(request),
        "top_logprobs": request.top_logprobs,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation,
        "user": request.user,
    }


def _format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    return {**wanted.model_dump(by_alias=True), "strict": bool(wanted.strict)}


def _with_output(output: list[Item], usage: Mapping[str, Any] | None) -> dict[str, Any]:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    return {"output": output, "output_text": text, "usage": usage_of(usage)}


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    text = token.get("token") or ""
    octets = token.get("bytes")
    return {
        "token": text,
        "bytes": list(text.encode(errors="replace")) if octets is None else octets,
        "logprob": max(token.get("logprob") or 0.0, LOGPROB_FLOOR),
    }
