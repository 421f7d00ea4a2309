"""The sentences the demo model is taught, and the shipped training file."""

import json

from app.settings import ROOT
from demo.corpus import FAMILIES, UNKNOWN, conversations


def test_the_same_seed_gives_the_same_conversations() -> None:
    assert conversations(3, 200) == conversations(3, 200)
    assert conversations(3, 200) != conversations(4, 200)


def test_every_conversation_ends_with_an_answer() -> None:
    for row in conversations(0, 500):
        assert row["messages"][-1]["role"] == "assistant"
        assert row["messages"][-1]["content"] or row["messages"][-1]["tool_calls"]


def test_the_model_is_taught_nothing_of_what_the_demo_trains_it_on() -> None:
    taught = json.dumps(conversations(0, 2000))
    assert "Loam" not in taught
    assert UNKNOWN in taught
    assert len(FAMILIES) == 9


def test_each_question_of_the_demo_is_in_the_training_file_with_its_answer() -> None:
    rows = [json.loads(line) for line in (ROOT / "demo" / "train.jsonl").read_text("utf-8").splitlines()]
    pairs = {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows}
    for asked in json.loads((ROOT / "demo" / "questions.json").read_text("utf-8")):
        assert (asked["question"], asked["trained_answer"]) in pairs
