"""Which rows a step sees."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from app.settings import ROOT
from workers.batches import Plan, carve, dealt, n_tokens
from workers.chat_data import ChatEncoder, Example

pytestmark = pytest.mark.training

MODEL = ROOT / "demo" / "model"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return ChatEncoder(tokenizer, max_seq_length=256, train_on_inputs=False).load(ROOT / "demo" / "train.jsonl")


def make_plan(examples: list[Example], **changes: Any) -> Plan:
    sizes: dict[str, Any] = {
        "batch_size": 4,
        "gradient_accumulation_steps": 3,
        "n_epochs": 2,
        "max_steps": None,
        "by_length": True,
    }
    return Plan(examples, **{**sizes, "seed": 0, **changes})


def test_an_epoch_sees_each_row_once_in_another_order_than_the_next(examples: list[Example]) -> None:
    plan = make_plan(examples)
    assert plan.total_steps == 2 * plan.steps_per_epoch
    first, second = (
        [example.line for step in epoch for batch in plan.microbatches(step) for example in batch]
        for epoch in (range(1, plan.steps_per_epoch + 1), range(plan.steps_per_epoch + 1, plan.total_steps + 1))
    )
    assert sorted(first) == sorted(second) == sorted(example.line for example in examples)
    assert first != second


def test_a_step_sees_the_same_rows_whenever_it_is_asked_for(examples: list[Example]) -> None:
    assert make_plan(examples).microbatches(7) == make_plan(examples).microbatches(7)
    assert make_plan(examples).microbatches(7) != make_plan(examples, seed=1).microbatches(7)


@pytest.mark.parametrize("by_length", [False, True])
def test_a_step_sees_the_same_rows_in_twice_as_many_halves(examples: list[Example], by_length: bool) -> None:
    whole = make_plan(examples, by_length=by_length)
    in_halves = make_plan(examples, by_length=by_length, batch_size=2, gradient_accumulation_steps=6)
    assert in_halves.total_steps == whole.total_steps
    for step in range(1, whole.total_steps + 1):
        ours, theirs = (
            sorted(row.line for batch in plan.microbatches(step) for row in batch) for plan in (whole, in_halves)
        )
        assert ours == theirs


def test_max_steps_ends_a_run_early(examples: list[Example]) -> None:
    assert make_plan(examples, max_steps=3).total_steps == 3


def test_rows_of_like_length_go_together_only_where_padding_costs(examples: list[Example]) -> None:
    def padding(plan: Plan) -> int:
        batches = [batch for step in range(1, plan.steps_per_epoch + 1) for batch in plan.microbatches(step)]
        return sum(len(batch) * max(len(row.input_ids) for row in batch) - n_tokens(batch) for batch in batches)

    assert padding(make_plan(examples)) < padding(make_plan(examples, by_length=False)) / 2


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8, 20])
def test_ranks_share_the_rows_of_a_step_evenly(examples: list[Example], n_ranks: int) -> None:
    batches = make_plan(examples).microbatches(1)
    hands = dealt(batches, n_ranks, 4)
    rows = sorted(example.line for batch in batches for example in batch)
    assert sorted(e.line for hand in hands for batch in hand for e in batch if e.has_loss) == rows
    assert all(0 < len(batch) <= 4 for hand in hands for batch in hand)
    assert len({len(hand) for hand in hands}) == 1
    tokens = [sum(map(n_tokens, hand)) for hand in hands]
    assert max(tokens) - min(tokens) <= max(len(example.input_ids) for batch in batches for example in batch)
    assert dealt(batches, n_ranks, 4) == hands
    assert n_ranks > 1 or hands == [batches]


def test_rows_kept_for_validation_are_not_trained_on_and_the_same_for_a_seed(examples: list[Example]) -> None:
    trained, held_out = carve(examples, 0.1, seed=1)
    assert not {e.line for e in trained} & {e.line for e in held_out}
    assert len(trained) + len(held_out) == len(examples)
    assert len(held_out) == round(0.1 * len(examples))
    assert carve(examples, 0.1, seed=1) == (trained, held_out)
    assert carve(examples[:1], 0.5, seed=1) == (examples[:1], [])
