"""The first rows of a training file as the recipe would learn them: python -m workers.preview ORDER, JSON in and out.

What is answered is the last line of the output. Without transformers, or when asked to simulate, a word is a token.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from workers.simulated_sft import words_of
from workers.training_rows import Row, RowError, read_rows

MAX_TOKENS = 20_000  # in one answer; of more, it tells how many they are

Json = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One sequence of a row."""

    ids: list[int]
    has_loss: list[bool]
    is_cut: bool


@dataclass(frozen=True)
class Reader:
    """How rows become sequences, and what a token of one says."""

    read: Callable[[int, Row], list[Shown]]
    text_of: Callable[[int], str]


@dataclass
class Room:
    """How many tokens may still be told."""

    left: int = MAX_TOKENS

    def take(self, tokens: list[int]) -> list[int]:
        taken = tokens[: self.left]
        self.left -= len(taken)
        return taken


def preview(order: Json) -> Json:
    is_simulated = order["simulate"] or find_spec("transformers") is None
    reader, room = words(order) if is_simulated else recipe(order), Room()
    rows = islice(read_rows(Path(order["training_file"])), order["n"])
    return {"is_simulated": is_simulated, "rows": [tell_row(line, row, reader, room) for line, row in rows]}


def tell_row(line: int, row: Row, reader: Reader, room: Room) -> Json:
    try:
        sequences = reader.read(line, row)
    except RowError as error:  # training would refuse it
        return {"line": line, "error": str(error), "examples": []}
    return {"line": line, "error": None, "examples": [tell(shown, reader, room) for shown in sequences]}


def tell(shown: Shown, reader: Reader, room: Room) -> Json:
    told = zip(room.take(shown.ids), shown.has_loss, strict=False)
    return {
        "n_tokens": len(shown.ids),
        "n_loss_tokens": sum(shown.has_loss),
        "is_cut": shown.is_cut,
        "tokens": [{"id": token, "text": reader.text_of(token), "has_loss": learned} for token, learned in told],
    }


def recipe(order: Json) -> Reader:
    """The recipe's own function."""
    from workers.chat_data import IGNORED, load_encoder  # noqa: PLC0415 - needs transformers

    encoder = load_encoder(
        order["model_path"], max_seq_length=order["max_seq_length"], train_on_inputs=order["train_on_inputs"]
    )

    def read(line: int, row: Row) -> list[Shown]:
        # The first token is predicted from nothing, so it never bears loss.
        return [
            Shown(e.input_ids, [False, *(label != IGNORED for label in e.labels[1:])], e.is_cut)
            for e in encoder.encode(row, line=line)
        ]

    return Reader(read, lambda token: str(encoder.tokenizer.decode([token])))


def words(order: Json) -> Reader:
    """A word is a token, numbered as it comes."""
    numbers: dict[str, int] = {}
    spelt: list[str] = []
    most, with_inputs = order["max_seq_length"], order["train_on_inputs"]

    def read(_: int, row: Row) -> list[Shown]:
        said = [found for message in row["messages"] for found in words_of(message)]
        spelt.extend(word for word in dict(said) if word not in numbers)
        numbers.update((word, number) for number, word in enumerate(spelt[len(numbers) :], start=len(numbers)))
        ids = [numbers[word] for word, _ in said]
        has_loss = [at > 0 and (is_learned or with_inputs) for at, (_, is_learned) in enumerate(said)]
        return [Shown(ids[:most], has_loss[:most], is_cut=len(ids) > most)]

    return Reader(read, spelt.__getitem__)


if __name__ == "__main__":
    answer = json.dumps(preview(json.loads(sys.argv[1])))
    sys.stdout.write("\n" + answer)
