"""The first rows of a training file as the recipe would learn them: python -m workers.preview ORDER, JSON in and out.

What is answered is the last line of the output. Without transformers, or when asked to simulate, a word is a token.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from workers.simulated_sft import words_of
from workers.training_rows import RowError, read_rows

MAX_TOKENS = 20_000  # in one answer; of more, it tells how many they are

Json = dict[str, Any]
Token = tuple[int, str, bool]  # id, text, has loss
Sequences = list[tuple[list[Token], bool]]  # of one row, and whether each is cut


@dataclass
class Room:
    """How many tokens may still be told."""

    left: int = field(default=MAX_TOKENS)

    def take(self, tokens: list[Token]) -> list[Token]:
        taken = tokens[: self.left]
        self.left -= len(taken)
        return taken


def preview(order: Json) -> Json:
    is_simulated = order["simulate"] or find_spec("transformers") is None
    show = simulated(order) if is_simulated else real(order)
    room = Room()
    rows = [tell(line, show, raw, room) for line, raw in islice(read_rows(Path(order["training_file"])), order["n"])]
    return {"is_simulated": is_simulated, "rows": rows}


def tell(line: int, show: Callable[[int, Json], Sequences], row: Json, room: Room) -> Json:
    try:
        sequences = show(line, row)
    except RowError as error:  # training would refuse it
        return {"line": line, "error": str(error), "examples": []}
    return {"line": line, "error": None, "examples": [tell_one(tokens, is_cut, room) for tokens, is_cut in sequences]}


def tell_one(tokens: list[Token], is_cut: bool, room: Room) -> Json:
    told = [{"id": id_, "text": text, "has_loss": has_loss} for id_, text, has_loss in room.take(tokens)]
    n_loss_tokens = sum(has_loss for _, _, has_loss in tokens)
    return {"n_tokens": len(tokens), "n_loss_tokens": n_loss_tokens, "is_cut": is_cut, "tokens": told}


def real(order: Json) -> Callable[[int, Json], Sequences]:
    from workers.chat_data import IGNORED, load_encoder  # noqa: PLC0415 - needs transformers

    encoder = load_encoder(
        order["model_path"], max_seq_length=order["max_seq_length"], train_on_inputs=order["train_on_inputs"]
    )

    def show(line: int, row: Json) -> Sequences:
        return [
            (
                [
                    # The first token is predicted from nothing, so it never bears loss.
                    (token, str(encoder.tokenizer.decode([token])), at > 0 and label != IGNORED)
                    for at, (token, label) in enumerate(zip(example.input_ids, example.labels, strict=True))
                ],
                example.is_cut,
            )
            for example in encoder.encode(row, line=line)
        ]

    return show


def simulated(order: Json) -> Callable[[int, Json], Sequences]:
    most = order["max_seq_length"]

    def show(_: int, row: Json) -> Sequences:
        words = [(word, learned) for message in row["messages"] for word, learned in words_of(message)]
        tokens = [
            (at, word, at > 0 and (learned or order["train_on_inputs"])) for at, (word, learned) in enumerate(words)
        ]
        return [(tokens[:most], len(tokens) > most)]

    return show


if __name__ == "__main__":
    answer = json.dumps(preview(json.loads(sys.argv[1])))
    sys.stdout.write("\n" + answer)
