"""What is learned of a row: the assistant's words and their end, exactly, whatever the template is like."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from app.settings import ROOT
from workers.chat_data import IGNORED, ChatEncoder, Example
from workers.training_rows import RowError, read_rows

pytestmark = pytest.mark.training  # needs transformers, which the core goes without

Row = dict[str, Any]

# As plain as templates come: no markers, so the answers are found as what is added to their prompts.
UNMARKED = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
# As Qwen3's: only the last answer keeps a (here empty) thought.
FORGETS_THOUGHTS = UNMARKED.replace(
    "+ m.content", "+ ('<think></think>' if loop.last and m.role == 'assistant' else '') + m.content"
)
# The answer does not begin where the generation prompt ends.
ASKS_ANOTHER = UNMARKED.replace("'<|im_start|>assistant\n' -", "'<|im_start|>bot\n' -")
NEVER_ENDS = UNMARKED.replace("<|im_end|>", "")
HIDES_ANSWERS = UNMARKED.replace("m.content", "('' if m.role == 'assistant' else m.content)")

WEATHER: Row = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "demo" / "model")


def encoder(
    tokenizer: PreTrainedTokenizerBase, template: str = "", *, max_seq_length: int = 4096, train_on_inputs: bool = False
) -> ChatEncoder:
    tokenizer.chat_template = template or tokenizer.chat_template
    return ChatEncoder(tokenizer, max_seq_length=max_seq_length, train_on_inputs=train_on_inputs)


def say(role: str, content: Any, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def chat(*messages: Row, **more: Any) -> Row:
    return {"messages": list(messages), **more}


def learned(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """The runs of tokens that are learned, as text."""
    texts, run = [], []
    for label in [*example.labels, IGNORED]:
        if label != IGNORED:
            run.append(label)
        elif run:
            texts.append(tokenizer.decode(run))
            run = []
    return texts


TWO_TURNS = chat(
    say("system", "Be kind."),
    say("user", "Hi"),
    say("assistant", "Hello!"),
    say("user", "Bye"),
    say("assistant", "Bye."),
)


@pytest.mark.parametrize("template", ["", UNMARKED], ids=["with markers", "without markers"])
def test_each_answer_and_its_end_are_learned_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    [example] = encoder(tokenizer, template).encode(TWO_TURNS)
    assert learned(tokenizer, example) == ["Hello!<|im_end|>", "Bye.<|im_end|>"]
    assert tokenizer.decode(example.input_ids) == tokenizer.apply_chat_template(TWO_TURNS["messages"], tokenize=False)
    assert all(label in (token, IGNORED) for token, label in zip(example.input_ids, example.labels, strict=True))


@pytest.mark.parametrize("template", ["", UNMARKED], ids=["with markers", "without markers"])
def test_an_answer_of_weight_0_is_read_but_not_learned(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    row = chat(
        say("user", "Hi"), say("assistant", "What?", weight=0), say("user", "Hi"), say("assistant", "Yes", weight=1)
    )
    [example] = encoder(tokenizer, template).encode(row)
    assert learned(tokenizer, example) == ["Yes<|im_end|>"]
    assert "What?" in tokenizer.decode(example.input_ids)


def test_a_prompt_is_encoded_as_it_will_be_served(tokenizer: PreTrainedTokenizerBase) -> None:
    """An answer that begins with line breaks must not melt into the prompt's last token."""
    row = chat(say("user", "Hi"), say("assistant", "\n\nHello"))
    [example] = encoder(tokenizer).encode(row)
    prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert example.input_ids[: len(prompt)] == prompt
    assert learned(tokenizer, example) == ["\n\nHello<|im_end|>"]


def test_tool_calls_are_learned_and_tool_results_are_not(tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat(
        say("user", "Weather in Paris?"),
        say("assistant", None, tool_calls=[CALL]),
        say("tool", "sunny", tool_call_id="call_1"),
        say("assistant", "It is sunny."),
        tools=[{"type": "function", "function": WEATHER}],
    )
    [example] = encoder(tokenizer).encode(row)
    assert learned(tokenizer, example) == [f"{CALLED}<|im_end|>", "It is sunny.<|im_end|>"]
    text = tokenizer.decode(example.input_ids)
    shown = {"name": "get_weather", "description": None, "parameters": WEATHER["parameters"]}  # as vLLM fills it in
    assert f"<tools>\n{json.dumps(shown)}\n</tools>" in text
    assert "<tool_response>\nsunny\n</tool_response>" in text


def test_a_flat_tool_is_the_same_as_one_in_openais_form(tokenizer: PreTrainedTokenizerBase) -> None:
    turn = (say("user", "Hi"), say("assistant", "Hello"))
    [nested] = encoder(tokenizer).encode(chat(*turn, tools=[{"type": "function", "function": WEATHER}]))
    [flat] = encoder(tokenizer).encode(chat(*turn, tools=[{"type": "function", **WEATHER}]))
    assert flat == nested


def test_text_parts_are_joined_as_the_engine_joins_them(tokenizer: PreTrainedTokenizerBase) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]
    [example] = encoder(tokenizer).encode(
        chat(say("developer", "Be kind."), say("user", parts), say("assistant", "Yes"))
    )
    assert "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi\nthere<|im_end|>" in tokenizer.decode(
        example.input_ids
    )


def test_a_template_that_rewrites_history_gives_an_example_for_each_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    first, second = encoder(tokenizer, FORGETS_THOUGHTS).encode(TWO_TURNS, line=7)
    assert learned(tokenizer, first) == ["<think></think>Hello!<|im_end|>"]
    assert learned(tokenizer, second) == ["<think></think>Bye.<|im_end|>"]
    assert "<think></think>Hello!" not in tokenizer.decode(second.input_ids)
    assert (first.line, second.line) == (7, 7)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (ASKS_ANOTHER, r"messages\[2\] does not begin where its generation prompt ends"),
        (NEVER_ENDS, r"messages\[2\] does not end with a token at which the engine stops"),
        (HIDES_ANSWERS, r"messages\[2\]: the model's template does not show its content"),
        ("{{ messages[0].nothing.of }}", "no attribute"),
    ],
)
def test_a_template_whose_answers_are_not_proven_is_refused_with_the_line_and_the_reason(
    tokenizer: PreTrainedTokenizerBase, template: str, reason: str
) -> None:
    with pytest.raises(RowError, match=rf"^Line 7: the model's chat template cannot render it: .*{reason}"):
        encoder(tokenizer, template).encode(TWO_TURNS, line=7)


def test_where_earlier_answers_are_rewritten_a_weight_0_cannot_be_kept_out_of_the_inputs(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    row = chat(say("user", "Hi"), say("assistant", "What?", weight=0), say("user", "Ho"), say("assistant", "Yes"))
    with pytest.raises(RowError, match="train_on_inputs would learn its weight 0 too"):
        encoder(tokenizer, FORGETS_THOUGHTS, train_on_inputs=True).encode(row)


@pytest.mark.parametrize("role", ["system", "user", "tool", "assistant"])
def test_control_tokens_spelt_in_a_message_stay_text(tokenizer: PreTrainedTokenizerBase, role: str) -> None:
    text = "a<|im_end|>\n<|im_start|>assistant\nb<|endoftext|>"
    row = chat(say(role, text), say("user", "Hi"), say("assistant", "Hello"))
    [example] = encoder(tokenizer).encode(row)
    assert text in tokenizer.decode(example.input_ids)
    starts = example.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    ends = example.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert (starts, ends) == (3, 3)


def test_thoughts_in_an_answer_are_tokens_as_they_will_be_when_served(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    [example] = encoder(tokenizer).encode(chat(say("user", "Hi"), say("assistant", "<think>hm</think>Hello")))
    assert tokenizer.convert_tokens_to_ids("</think>") in example.labels


def test_a_long_row_is_cut_and_one_without_an_answer_left_has_no_loss(tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat(say("user", "Hi"), say("assistant", "one two three four five six"))
    [whole] = encoder(tokenizer).encode(row)
    [cut] = encoder(tokenizer, max_seq_length=len(whole.input_ids) - 4).encode(row)
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:-4], whole.labels[:-4])
    assert cut.has_loss
    [empty] = encoder(tokenizer, max_seq_length=3).encode(row)
    assert not empty.has_loss


def test_inputs_are_learned_too_if_asked_but_never_a_weight_0(tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat(say("user", "Hi"), say("assistant", "What?", weight=0), say("user", "Ho"), say("assistant", "Yes"))
    [example] = encoder(tokenizer, train_on_inputs=True).encode(row)
    text = "".join(learned(tokenizer, example))
    assert "What?" not in text
    assert text.count("user") == 2


def test_lines_end_with_a_newline_alone_and_blank_ones_are_counted(tmp_path: Path) -> None:
    odd = chat(say("user", "a\u2028b\u0085c"), say("assistant", "é🙂"))
    text = "\ufeff" + json.dumps(odd, ensure_ascii=False) + "\r\n\n  \n" + json.dumps(TWO_TURNS)
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    assert list(read_rows(tmp_path / "rows.jsonl")) == [(1, odd), (4, TWO_TURNS)]


@pytest.mark.parametrize("bad", [b"{", b"[]", b'{"messages": []}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json.dumps(TWO_TURNS).encode() + b"\n\n" + bad + b"\n")
    with pytest.raises(RowError, match=r"^Line 3: "):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_the_shipped_training_file_is_learned_word_for_word(tokenizer: PreTrainedTokenizerBase) -> None:
    path = ROOT / "demo" / "train.jsonl"
    examples = encoder(tokenizer).load(path)
    for (_, row), example in zip(read_rows(path), examples, strict=True):
        answers = [m["content"] + "<|im_end|>" for m in row["messages"] if m["role"] == "assistant"]
        assert learned(tokenizer, example) == answers
