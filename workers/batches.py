"""Which rows an optimizer step sees, and the tensors they become."""

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import torch

from workers.chat_data import IGNORED, Example

GROUPED_STEPS = 32  # rows are sorted by length within so many steps: little padding, still shuffled

Microbatch = list[Example]  # the rows of one forward pass
Inputs = dict[str, Any]  # of the model


@dataclass(frozen=True)
class Plan:
    """Which rows each optimizer step sees: a function of seed and step alone, so a resumed run needs no more."""

    examples: list[Example]
    batch_size: int
    gradient_accumulation_steps: int
    n_epochs: int
    max_steps: int | None
    seed: int
    by_length: bool  # rows of like length go together, where padding would cost

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.examples) / self.rows_per_step)

    @property
    def total_steps(self) -> int:
        return min(self.steps_per_epoch * self.n_epochs, self.max_steps or sys.maxsize)

    def microbatches(self, step: int) -> list[Microbatch]:
        """Steps count from 1. Which rows one sees does not hang on how many of them go at once."""
        epoch, at = divmod(step - 1, self.steps_per_epoch)
        lengths = tuple(len(example.input_ids) if self.by_length else 0 for example in self.examples)
        rows = shuffled_steps(lengths, self.rows_per_step, f"{self.seed}-{epoch}")[at]
        return in_order([self.examples[row] for row in rows], self.batch_size)


@lru_cache(maxsize=1)
def shuffled_steps(lengths: tuple[int, ...], rows_per_step: int, seed: str) -> list[list[int]]:
    rng = Random(seed)  # noqa: S311
    rows = rng.sample(range(len(lengths)), len(lengths))
    window = GROUPED_STEPS * rows_per_step
    grouped = [
        row for at in range(0, len(rows), window) for row in sorted(rows[at : at + window], key=lengths.__getitem__)
    ]
    steps = [grouped[at : at + rows_per_step] for at in range(0, len(grouped), rows_per_step)]
    rng.shuffle(steps)
    return steps


def carve(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Rows to train on, and at least one to validate with if a share is asked for. A row's examples stay together."""
    lines = sorted({example.line for example in examples})
    n_kept = min(max(1, round(share * len(lines))), len(lines) - 1) if share else 0
    kept = set(Random(f"carve-{seed}").sample(lines, n_kept))  # noqa: S311
    return [e for e in examples if e.line not in kept], [e for e in examples if e.line in kept]


def halves(batches: list[Microbatch]) -> list[Microbatch]:
    """The same rows with half as many at once: a step's loss is summed, so it teaches the same."""
    cut = [(batch, -(-len(batch) // 2)) for batch in batches]
    return [half for batch, at in cut for half in (batch[:at], batch[at:]) if half]


def dealt(batches: list[Microbatch], n_ranks: int, batch_size: int) -> list[list[Microbatch]]:
    """A step's rows for each of several ranks: about as many tokens each, and no more rows at once than asked for."""
    if n_ranks == 1:
        return [batches]
    hands: list[Microbatch] = [[] for _ in range(n_ranks)]
    lengths = [0] * n_ranks
    rows = [example for batch in batches for example in batch]
    for example in sorted(rows, key=lambda example: len(example.input_ids), reverse=True):
        lightest = lengths.index(min(lengths))
        hands[lightest].append(example)
        lengths[lightest] += len(example.input_ids)
    shares = [in_order(hand, batch_size) for hand in hands]
    return [filled(share, max(map(len, shares))) for share in shares]


def filled(batches: list[Microbatch], n: int) -> list[Microbatch]:
    """As many as other ranks have, since some passes take all of them: those that are missing teach nothing."""
    return batches + [[Example(0, [0], [IGNORED])]] * (n - len(batches))


def in_order(examples: list[Example], batch_size: int) -> list[Microbatch]:
    return [examples[at : at + batch_size] for at in range(0, len(examples), batch_size)]


def pad(batch: Microbatch, device: torch.device) -> tuple[Inputs, torch.Tensor]:
    """Padding lies to the right, where the causal mask hides it from all that counts."""
    longest = max(len(example.input_ids) for example in batch)
    ids = torch.tensor([example.input_ids + [0] * (longest - len(example.input_ids)) for example in batch])
    rows = [next_tokens(example) + [IGNORED] * (longest - len(example.labels)) for example in batch]
    return {"input_ids": ids.to(device)}, torch.tensor(rows).to(device)  # (B, T), (B, T)


def pack(batch: Microbatch, device: torch.device) -> tuple[Inputs, torch.Tensor]:
    """Positions begin again with each row; `row_lengths` goes through the model to our attention."""
    ids = torch.tensor([[token for example in batch for token in example.input_ids]])  # (1, T)
    positions = torch.tensor([[at for example in batch for at in range(len(example.input_ids))]])  # (1, T)
    targets = torch.tensor([[token for example in batch for token in next_tokens(example)]])  # (1, T)
    row_lengths = [len(example.input_ids) for example in batch]
    inputs = {"input_ids": ids.to(device), "position_ids": positions.to(device), "row_lengths": row_lengths}
    return inputs, targets.to(device)


def next_tokens(example: Example) -> list[int]:
    return [*example.labels[1:], IGNORED]


def count_loss_tokens(batch: Microbatch) -> int:
    return sum(label != IGNORED for example in batch for label in example.labels[1:])


def n_tokens(batch: Microbatch) -> int:
    return sum(len(example.input_ids) for example in batch)
