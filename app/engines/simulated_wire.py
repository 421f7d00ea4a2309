"""The simulated engine's bodies, field for field in the order in which vLLM 0.32 writes them."""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from app.engines.simulated_answers import Answer, Token, ToolCall, logprob_of
from app.engines.simulated_request import ChatRequest

Json = dict[str, Any]
FINGERPRINT = "vllm-0.32.0-simulated"


@dataclass(frozen=True)
class Exchange:
    """One request and what is the same in each body that answers it."""

    request: ChatRequest
    model: str
    cached_tokens: int
    counts_reasoning: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def usage(exchange: Exchange, completion_tokens: int, reasoning_tokens: int) -> Json:
    prompt_tokens = len(exchange.request.prompt)
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens} if exchange.counts_reasoning else None,
    }


def total_usage(exchange: Exchange, answers: list[Answer]) -> Json:
    total = usage(exchange, sum(len(a.tokens) for a in answers), sum(a.reasoning_tokens for a in answers))
    reasoning = total.pop("completion_tokens_details")
    details = {
        "cached_tokens": exchange.cached_tokens,
        "created_cache_tokens": None,
        "multimodal_tokens": None,
    }
    return {**total, "prompt_tokens_details": details, "completion_tokens_details": reasoning}


def completion(exchange: Exchange, answers: list[Answer]) -> Json:
    return {
        "id": exchange.id,
        "object": "chat.completion",
        "created": exchange.created,
        "model": exchange.model,
        "choices": [choice(exchange.request, answer) for answer in answers],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": total_usage(exchange, answers),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def choice(request: ChatRequest, answer: Answer) -> Json:
    return {
        "index": answer.index,
        "message": message(answer),
        "logprobs": logprobs(request, answer, answer.tokens),
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }


def message(answer: Answer) -> Json:
    called = {}
    if answer.call:
        function = {"name": answer.call.name, "arguments": answer.text("tool")}
        called = {"tool_calls": [{"id": answer.call.id, "type": "function", "function": function}]}
    return {
        "role": "assistant",
        "content": None if answer.call else answer.text("content"),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        **called,
        "reasoning": answer.text("reasoning") or None,
    }


def logprobs(request: ChatRequest, answer: Answer, tokens: list[Token]) -> Json | None:
    if request.top_logprobs is None:
        return None
    return {"content": [token_logprobs(answer, token.text, request.top_logprobs) for token in tokens]}


def token_logprobs(answer: Answer, text: str, top: int) -> Json:
    """The token itself, then `top` of the most likely: itself first, then others that were not to be."""
    said = one_logprob(text, logprob_of(answer, text))
    others = [one_logprob(f"{text}~{nth}", said["logprob"] - nth) for nth in range(1, top)]
    return {**said, "top_logprobs": [said, *others] if top else []}


def one_logprob(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def first_chunk(exchange: Exchange, index: int) -> Json:
    start = {
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    body = chunk(exchange, start)
    if exchange.request.continuous_usage:
        body["usage"] = usage(exchange, 0, 0)
    return {**body, "prompt_token_ids": None, "prompt_text": None}


def is_told(request: ChatRequest, answer: Answer, nth: int) -> bool:
    """The first token at once, then some at a time, and at the end the rest."""
    return nth == len(answer.tokens) or (nth < len(answer.tokens) and nth % request.stream_interval == 0)


def token_chunk(exchange: Exchange, answer: Answer, nth: int) -> Json:
    """The chunk of an answer's tokens up to `nth`; the one past the last carries the reason why it ended."""
    is_end = nth >= len(answer.tokens)
    interval = exchange.request.stream_interval
    first, so_far = max(0, (nth - 1) // interval * interval + 1), min(nth + 1, len(answer.tokens))
    tokens = answer.tokens[first:so_far]
    body = chunk(
        exchange,
        {
            "index": answer.index,
            "delta": delta(answer, first, tokens),
            "logprobs": logprobs(exchange.request, answer, tokens) if tokens else None,
            "finish_reason": answer.finish_reason if is_end else None,
            **({"stop_reason": answer.stop_reason} if is_end else {}),
            "token_ids": None,
        },
    )
    if exchange.request.continuous_usage:
        body["usage"] = usage(exchange, so_far, min(so_far, answer.reasoning_tokens))  # thoughts come first
    if is_end and not exchange.request.include_usage:
        body["system_fingerprint"] = FINGERPRINT
    return body


def delta(answer: Answer, first: int, tokens: list[Token]) -> Json:
    """What these tokens, of which the `first` is the answer's, say."""
    told: Json = {}
    for token in tokens:
        told[token.part] = told.get(token.part, "") + token.text
    if (arguments := told.pop("tool", None)) is not None:
        is_new = not first or answer.tokens[first - 1].part != "tool"
        told["tool_calls"] = [call_delta(answer.call, arguments, is_new=is_new)]
    return told or ({} if answer.call else {"content": ""})


def call_delta(call: ToolCall | None, arguments: str, *, is_new: bool) -> Json:
    if call is None or not is_new:
        return {"index": 0, "function": {"arguments": arguments}}
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "index": 0, "function": function}


def usage_chunk(exchange: Exchange, answers: list[Answer]) -> Json:
    """Sent last, and like vLLM's without any null."""
    total = {key: value for key, value in total_usage(exchange, answers).items() if value is not None}
    total["prompt_tokens_details"] = {"cached_tokens": exchange.cached_tokens}
    return {**chunk(exchange), "usage": total, "system_fingerprint": FINGERPRINT}


def chunk(exchange: Exchange, *choices: Json) -> Json:
    return {
        "id": exchange.id,
        "object": "chat.completion.chunk",
        "created": exchange.created,
        "model": exchange.model,
        "choices": list(choices),
    }


def event(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def model_card(name: str, *, root: str, parent: str | None = None, max_model_len: int | None = None) -> Json:
    now = int(time.time())
    permission = {
        "id": f"modelperm-{uuid4().hex}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
