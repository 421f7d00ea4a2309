"""What is learned with the template of each model that the catalog says is trainable: what an engine has it write."""

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from app.catalog.load import load_catalog
from app.settings import ROOT
from tests.workers.catalog_templates import FAMILIES, Family, make_tokenizer
from workers.chat_data import IGNORED, ChatEncoder, Example
from workers.training_rows import RowError

pytestmark = pytest.mark.training  # needs transformers, which the core goes without

Row = dict[str, Any]

USER, SYSTEM = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind."}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "now", "parameters": {}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
RESULT = {"role": "tool", "content": "sunny", "tool_call_id": "call00001"}


def says(content: str | None, **more: Any) -> Row:
    return {"role": "assistant", "content": content, **more}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family: Family) -> PreTrainedTokenizerBase:
    return make_tokenizer(family)


@pytest.fixture
def encoder(family: Family, tokenizer: PreTrainedTokenizerBase) -> ChatEncoder:
    stops = tokenizer.convert_tokens_to_ids(list(family.stops))
    return ChatEncoder(tokenizer, max_seq_length=10_000, train_on_inputs=False, stop_ids=stops)


def runs(example: Example) -> Iterator[tuple[int, int]]:
    """Where tokens that are learned begin and end."""
    start = 0
    for at, label in enumerate([*example.labels, IGNORED]):
        if label == IGNORED:
            if start < at:
                yield start, at
            start = at + 1


def taught(encoder: ChatEncoder, row: Row) -> list[str]:
    """The answers as they are learned; each behind the very tokens that the engine is asked with."""
    examples = encoder.encode(row)
    found = [(example, start, end) for example in examples for start, end in runs(example)]
    at = [i for i, m in enumerate(row["messages"]) if m["role"] == "assistant" and m.get("weight", 1)]
    for i, (example, start, _) in zip(at, found, strict=True):
        assert example.input_ids[:start] == prompt_ids(encoder.tokenizer, row, i)
    return [encoder.tokenizer.decode(example.input_ids[start:end]) for example, start, end in found]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, row: Row, before: int) -> list[int]:
    """As vLLM makes it: arguments are objects, and messages with no calls have none."""
    messages = [{k: v for k, v in m.items() if k != "weight"} for m in row["messages"][:before]]
    for message in messages:
        message["content"] = message["content"] or ""
        if "tool_calls" in message:
            function = {"name": "get_weather", "arguments": {"city": "Paris"}}
            message["tool_calls"] = [{**call, "function": function} for call in message["tool_calls"]]
    text = tokenizer.apply_chat_template(messages, tools=row.get("tools"), add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("before", [[], [SYSTEM]], ids=["bare", "with a system message"])
def test_an_answer_is_learned_as_it_is_written_when_asked_for(
    family: Family, encoder: ChatEncoder, before: list[Row]
) -> None:
    row = {"messages": [*before, USER, says("Hello!")]}
    assert taught(encoder, row) == [family.says.format("Hello!")]


@pytest.mark.parametrize("before", [[], [SYSTEM]], ids=["bare", "with a system message"])
def test_each_answer_of_a_conversation_is_learned_behind_its_own_prompt(
    family: Family, encoder: ChatEncoder, before: list[Row]
) -> None:
    row = {"messages": [*before, USER, says("Hello!"), USER, says("Bye.")]}
    assert taught(encoder, row) == [family.says.format("Hello!"), family.says.format("Bye.")]
    if family.rewrites or not before:
        assert len(encoder.encode(row)) == (2 if family.rewrites else 1)


@pytest.mark.parametrize("content", ["What?", "", None])
def test_an_answer_of_weight_0_is_not_learned_also_if_it_is_empty(
    family: Family, encoder: ChatEncoder, content: str | None
) -> None:
    row = {"messages": [USER, says(content, weight=0), USER, says("Bye.", weight=1)]}
    assert taught(encoder, row) == [family.says.format("Bye.")]


@pytest.mark.parametrize(
    "message",
    [
        says("<think>\nhm\n</think>\n\nYes."),
        says("Yes.", reasoning_content="hm"),
        says("Yes.", reasoning="hm", reasoning_content="hm"),
    ],
    ids=["in the content", "beside it", "by either name"],
)
def test_a_thought_is_learned_where_the_model_has_to_write_it(
    family: Family, encoder: ChatEncoder, message: Row
) -> None:
    first = says("Sure.")
    told = taught(encoder, {"messages": [USER, first, USER, message]})
    if family.thinks:
        assert told == [family.says.format("Sure."), family.thinks.format("Yes.", thought="hm")]
    elif "reasoning_content" in message:  # a template that knows no thoughts leaves it out, here as in the engine
        assert told[1] == family.says.format("Yes.")
    else:
        assert told[1] == family.says.format(message["content"])


def test_tool_calls_are_learned_in_the_templates_form_or_refused(family: Family, encoder: ChatEncoder) -> None:
    row = {
        "messages": [USER, says(None, tool_calls=[CALL]), RESULT, says("It is sunny.")],
        "tools": [WEATHER],
    }
    if family.calls is None:
        with pytest.raises(RowError, match=r"^Line 1: the model's chat template cannot render it: "):
            encoder.encode(row)
    else:
        assert taught(encoder, row) == [family.calls, family.says.format("It is sunny.")]


def test_a_control_token_spelt_in_a_message_stays_text(family: Family, encoder: ChatEncoder) -> None:
    text = f"a{family.eos}b"
    [example] = encoder.encode({"messages": [{"role": "user", "content": text}, says(text)]})
    assert encoder.tokenizer.decode(example.input_ids).count(text) == 2
    assert len(list(runs(example))) == 1


def test_every_trainable_model_of_the_catalog_is_of_a_family_here() -> None:
    known = tuple(start for family in FAMILIES.values() for start in family.models)
    others = [spec.id for spec in load_catalog(ROOT / "models.yaml").models if spec.trainable]
    assert [model for model in others if not model.startswith(known)] == ["loam/demo"]
