"""Chat completions as vLLM streams them, and the Responses made of them."""

from collections.abc import Iterator
from typing import Any

from app.inference.responses_object import new_response
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import ResponseEvents

Json = dict[str, Any]
USAGE = {
    "prompt_tokens": 9,
    "total_tokens": 14,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def logprob(token: str) -> Json:
    alone = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return {**alone, "top_logprobs": [alone, {"token": "x", "logprob": -9999.0, "bytes": None}]}


def chunk(*, index: int = 0, finish_reason: str | None = None, tokens: str = "", **delta: Any) -> Json:
    """As vLLM writes it, with usage in every chunk."""
    logprobs = {"content": [logprob(token) for token in tokens]} if tokens else None
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], "usage": usage}


def call_chunk(arguments: str, *, index: int = 0, name: str | None = None, choice: int = 0) -> Json:
    first = {"id": f"call_{index}", "type": "function"} if name else {}
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return chunk(index=choice, tool_calls=[{"index": index, **first, "function": function}])


ROLE = chunk(role="assistant", content="")
LAST = {"id": "chatcmpl-1", "choices": [], "usage": USAGE}
TEXT = [ROLE, chunk(content="Loam"), chunk(content=" is soil."), chunk(content="", finish_reason="stop"), LAST]
THOUGHT = [
    ROLE,
    chunk(reasoning="Soil"),
    chunk(reasoning="?"),
    chunk(reasoning=" Yes.", content="\n\n"),
    chunk(content="Soil."),
    chunk(finish_reason="stop"),
    LAST,
]
CALLS = [
    ROLE,
    chunk(content="\n"),
    call_chunk("", name="look"),
    call_chunk('{"at":'),
    call_chunk(' "soil"}'),
    call_chunk('{"at": "sky"}', index=1, name="look"),
    chunk(content="", finish_reason="tool_calls"),
    LAST,
]
TEXT_AND_CALL = [ROLE, chunk(content="Let me see."), call_chunk("{}", name="look"), chunk(finish_reason="tool_calls")]
CUT = [ROLE, chunk(content="Loam is"), chunk(content=" a", finish_reason="length"), LAST]
CUT_IN_THOUGHT = [ROLE, chunk(reasoning="Hm"), chunk(reasoning=" hm", finish_reason="length"), LAST]
EMPTY = [ROLE, chunk(content="", finish_reason="stop"), LAST]
BLANK = [ROLE, chunk(content="\n "), chunk(finish_reason="stop"), LAST]
TWO = [
    ROLE,
    chunk(index=1, role="assistant", content=""),
    chunk(content="one"),
    chunk(index=1, content="two"),
    chunk(content="!", finish_reason="stop"),
    chunk(index=1, content="?", finish_reason="stop"),
    LAST,
]
LOGPROBS = [ROLE, chunk(content="Lo", tokens="Lo"), chunk(tokens="~"), chunk(content="am", tokens="am"), TEXT[3], LAST]
STREAMS = {
    "text": TEXT,
    "thought": THOUGHT,
    "calls": CALLS,
    "text and call": [*TEXT_AND_CALL, LAST],
    "cut": CUT,
    "cut in thought": CUT_IN_THOUGHT,
    "empty": EMPTY,
    "blank": BLANK,
    "two answers": TWO,
    "logprobs": LOGPROBS,
}


def machine(**fields: Any) -> ResponseEvents:
    request = ResponseCreate.model_validate({"model": "loam/demo", "input": "What is loam?", **fields})
    return ResponseEvents(new_response(request, response_id="resp_1", created_at=1700), clock=lambda: 1705.9)


def all_events(chunks: list[Json], **fields: Any) -> Iterator[Json]:
    events = machine(**fields)
    yield from events.start()
    for part in chunks:
        yield from events.feed(part)
    yield from events.finish()


def final(chunks: list[Json]) -> Json:
    *_, last = all_events(chunks)
    response: Json = last["response"]
    return response
