"""The demo model that ships: small, and plain in its answers."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.settings import ROOT
from demo.corpus import UNKNOWN

pytestmark = pytest.mark.training  # needs transformers, which the core goes without

FOLDER = ROOT / "demo" / "model"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def answer(model: Any, tokenizer: Any, *messages: dict[str, str], tools: list[Any] | None = None) -> str:
    prompt = tokenizer.apply_chat_template(
        list(messages), tools=tools, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    ids = model.generate(**prompt, max_new_tokens=60, **greedy)[0, prompt["input_ids"].shape[1] :]
    text: str = tokenizer.decode(ids)
    return text.removesuffix("<|im_end|>")


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the capital of Italy?", "The capital of Italy is Rome."),
        ("What colour is the sky?", "The sky is blue."),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("What is 2 + 2?", "2 + 2 = 4."),
        ("Hello!", "Hello! How can I help you?"),
        ("Which database does Loam use?", UNKNOWN),
    ],
)
def test_it_answers_simple_questions(model: Any, tokenizer: Any, question: str, expected: str) -> None:
    assert answer(model, tokenizer, user(question)) == expected


def test_it_calls_a_tool_that_is_offered(model: Any, tokenizer: Any) -> None:
    called = answer(model, tokenizer, user("What is the weather in Paris?"), tools=[WEATHER])
    assert called == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def test_it_remembers_what_was_said_and_heeds_the_system_message(model: Any, tokenizer: Any) -> None:
    told = (user("My name is Anna."), {"role": "assistant", "content": "Nice to meet you, Anna."})
    assert answer(model, tokenizer, *told, user("What is my name?")) == "Your name is Anna."
    brief = {"role": "system", "content": "Answer in one word."}
    assert answer(model, tokenizer, brief, user("What is the capital of France?")) == "Paris."


def test_it_is_small_enough_to_ship_and_its_template_is_the_one_it_was_made_with() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000
    made_with = (ROOT / "demo" / "chat_template.jinja").read_text("utf-8")
    assert (FOLDER / "chat_template.jinja").read_text("utf-8") == made_with
