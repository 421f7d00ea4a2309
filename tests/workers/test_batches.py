"""Which rows a step sees, and that packing them end to end changes nothing but the padding."""

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.settings import ROOT
from workers.batches import Plan, n_tokens
from workers.chat_data import ChatEncoder, Example
from workers.loss import summed_loss

pytestmark = pytest.mark.training

MODEL = ROOT / "demo" / "model"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return ChatEncoder(tokenizer, max_seq_length=256, train_on_inputs=False).load(ROOT / "demo" / "train.jsonl")


def make_plan(examples: list[Example], **changes: Any) -> Plan:
    sizes: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 3, "n_epochs": 2, "max_steps": None}
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


def test_max_steps_ends_a_run_early(examples: list[Example]) -> None:
    assert make_plan(examples, max_steps=3).total_steps == 3


def test_rows_that_are_packed_do_not_see_each_other(examples: list[Example]) -> None:
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    batch = sorted(examples, key=lambda example: len(example.input_ids))[:: len(examples) // 4]
    assert n_tokens(batch) < len(batch) * max(len(example.input_ids) for example in batch)
    with torch.no_grad():
        padded, padded_correct = summed_loss(model, batch, packing=False)
        packed, packed_correct = summed_loss(model, batch, packing=True)
        alone = [summed_loss(model, [example], packing=False)[0].item() for example in batch]
    assert math.isclose(packed.item(), padded.item(), rel_tol=1e-4)
    assert math.isclose(sum(alone), padded.item(), rel_tol=1e-4)
    assert packed_correct == padded_correct
