"""A stream of chunks as the whole completion."""

from typing import Any

from app.billing.prices import Usage
from app.inference.chunks import total_usage
from app.inference.folding import Folding

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def fold(*choices: dict[str, Any], usage: dict[str, Any] | None = None) -> dict[str, Any]:
    folding = Folding()
    for choice in choices:
        folding.feed(
            {**HEAD, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, **choice}]}
        )
    folding.feed({**HEAD, "choices": [], "usage": usage})
    return folding.completion


def test_pieces_of_text_become_one_message() -> None:
    whole = fold(
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"reasoning": "Hm"}},
        {"delta": {"content": "Hel"}},
        {"delta": {"content": "lo"}},
        {"finish_reason": "stop"},
        usage={"prompt_tokens": 3},
    )
    assert whole == {
        "object": "chat.completion",
        "id": "chatcmpl-1",
        "created": 7,
        "model": "m",
        "usage": {"prompt_tokens": 3},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None, "reasoning": "Hm"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


def test_pieces_of_calls_become_calls_in_their_order() -> None:
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    [choice] = fold(
        {"delta": {"tool_calls": [first]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}, second]}},
        {"finish_reason": "tool_calls"},
    )["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_choices_come_in_their_order_with_the_log_probabilities_of_all_their_tokens() -> None:
    choices = fold(
        {"index": 1, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}},
        {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}},
        {"index": 1, "delta": {"content": "c"}, "logprobs": {"content": [{"token": "c"}]}},
    )["choices"]
    assert [(c["index"], c["message"]["content"]) for c in choices] == [(0, "a"), (1, "bc")]
    assert choices[1]["logprobs"] == {"content": [{"token": "b"}, {"token": "c"}], "refusal": None}


def test_what_several_choices_have_cost_so_far_is_the_sum_of_theirs_and_one_prompt() -> None:
    def counts(cached_tokens: int, completion_tokens: int) -> dict[str, Any]:
        details = {"cached_tokens": cached_tokens}
        return {"prompt_tokens": 10, "completion_tokens": completion_tokens, "prompt_tokens_details": details}

    assert total_usage({0: counts(4, 3), 1: counts(4, 5)}) == Usage(10, 4, 8)
    assert total_usage({0: counts(0, 3), None: counts(4, 9)}) == Usage(10, 4, 9)
    assert total_usage({}) == Usage()
