"""A preview shows what the recipe would learn, by the recipe's own function."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import ROOT
from tests.rows import write_jsonl
from workers import preview
from workers.chat_data import IGNORED, NONCHARACTERS, load_encoder
from workers.training_rows import read_rows

pytestmark = pytest.mark.training  # needs transformers, which the core goes without

MODEL, ROWS = ROOT / "demo" / "model", ROOT / "demo" / "train.jsonl"
ORDER: dict[str, Any] = {
    "model_path": str(MODEL),
    "training_file": str(ROWS),
    "n": 3,
    "max_seq_length": 64,
    "train_on_inputs": False,
    "simulate": False,
}


def test_the_rows_are_those_that_the_recipe_learns() -> None:
    command = [sys.executable, "-m", "workers.preview", json.dumps(ORDER)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.rpartition(b"\n")[2])
    encoder = load_encoder(str(MODEL), max_seq_length=64, train_on_inputs=False)
    assert [row["line"] for row in told["rows"]] == [1, 2, 3]
    for row, (line, raw) in zip(told["rows"], read_rows(ROWS), strict=False):
        [example], [shown] = encoder.encode(raw, line=line), row["examples"]
        assert [token["id"] for token in shown["tokens"]] == example.input_ids
        assert [token["has_loss"] for token in shown["tokens"]] == [label != IGNORED for label in example.labels]
        answers = "".join(token["text"] for token in shown["tokens"] if token["has_loss"])
        assert answers == "".join(m["content"] + "<|im_end|>" for m in raw["messages"] if m["role"] == "assistant")
    assert told["is_simulated"] is False


def test_a_row_that_training_would_refuse_says_why_and_the_others_are_shown(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "one two three"}]}
    unmarkable = "<|im_end|>" + "".join(NONCHARACTERS)
    bad = {"messages": [{"role": "user", "content": unmarkable}, {"role": "assistant", "content": "Yes"}]}
    write_jsonl(tmp_path / "rows.jsonl", [bad, good])
    told = preview.preview({**ORDER, "training_file": str(tmp_path / "rows.jsonl"), "max_seq_length": 8})
    assert [(row["line"], bool(row["error"]), len(row["examples"])) for row in told["rows"]] == [
        (1, True, 0),
        (2, False, 1),
    ]
    [shown] = told["rows"][1]["examples"]
    assert (shown["is_cut"], shown["n_tokens"], len(shown["tokens"])) == (True, 8, 8)


def test_an_answer_has_no_more_tokens_than_there_is_room_for_but_counts_them_all() -> None:
    room, reader = preview.Room(left=3), preview.words(ORDER)
    [shown] = reader.read(1, {"messages": [{"role": "user", "content": ""}]})
    told = [preview.tell(preview.Shown(shown.ids[:2], [True, True], is_cut=False), reader, room) for _ in range(3)]
    assert [(one["n_tokens"], len(one["tokens"])) for one in told] == [(2, 2), (2, 1), (2, 0)]
