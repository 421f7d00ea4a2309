"""What is trained on: chats as ragged as real ones, made of the demo's own sentences. Pure."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

SHORTEST, LONGEST = 1, 24  # sentences in an answer; most are short, few are long


def ragged_chats(sentences: list[str], n_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = Random(seed)
    for _ in range(n_rows):
        n_sentences = round(SHORTEST * (LONGEST / SHORTEST) ** rng.random())  # even over the logarithm
        yield {
            "messages": [
                {"role": "user", "content": rng.choice(sentences)},
                {"role": "assistant", "content": " ".join(rng.choices(sentences, k=n_sentences))},
            ]
        }


def sentences_of(training_file: str) -> list[str]:
    rows = [json.loads(line) for line in training_file.split("\n") if line.strip()]
    return [message["content"] for row in rows for message in row["messages"]]
