"""What the checks of shapes find: nothing in an answer may differ from the document unseen."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.shapes import OPEN_RESPONSES, OPENAI, Document

TOKEN = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "logprobs": {"content": [TOKEN], "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field that nobody knows": lambda c: c.update(colour="red"),
    "one deep inside": lambda c: c["choices"][0]["message"].update(colour="red"),
    "a type": lambda c: c["usage"].update(prompt_tokens="1"),
    "a word": lambda c: c["choices"][0].update(finish_reason="done"),
    "a field left out": lambda c: c["choices"][0].pop("logprobs"),
    "a null": lambda c: c.update(usage=None),
}


def test_a_good_answer_passes() -> None:
    OPENAI.check("CreateChatCompletionResponse", COMPLETION)


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_an_answer_with_one_fault_does_not(spoil: Callable[[dict[str, Any]], Any]) -> None:
    answer = copy.deepcopy(COMPLETION)
    spoil(answer)
    with pytest.raises(AssertionError, match="CreateChatCompletionResponse at"):
        OPENAI.check("CreateChatCompletionResponse", answer)


def test_an_event_of_an_unknown_type_does_not() -> None:
    with pytest.raises(AssertionError, match="knows no event"):
        OPENAI.check_event({"type": "response.sneezed", "sequence_number": 0})


def test_each_remark_on_a_document_is_about_a_place_in_it() -> None:
    for document in (OPENAI, OPEN_RESPONSES):
        for place in (*document.added, *document.nullable, *document.unknown):
            assert is_in(document, place), place


def is_in(document: Document, place: str) -> bool:
    node: Any = document.definitions
    for name in place.split("."):
        node = fields_of(node)
        if name not in node:
            return False
        node = node[name]
    return True


def fields_of(node: Any) -> dict[str, Any]:
    """The properties of an object, or of the items of a list of them."""
    for branch in (node, node.get("items", {}), *node.get("anyOf", ())):
        if "properties" in branch:
            return dict(branch["properties"])
    return dict(node)
