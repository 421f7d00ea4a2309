"""What hyperparameters mean for the steps of the real recipe."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.recipes import finish
from tests.workers.test_out_of_memory import gradients, started
from tests.workers.test_sft import NUMBERS, make_run, metrics
from tests.workers.test_trackers import config
from workers.base_model import load_base
from workers.batches import Plan
from workers.run_state import Run
from workers.sft import begin, optimizer_step
from workers.sft_config import Hyperparameters
from workers.trained import new_lora, save
from workers.world import World

pytestmark = pytest.mark.training

LEARNING_RATE = 0.003
ALONE = World(torch.device("cpu"))


def asked(**changes: Any) -> Hyperparameters:
    return Hyperparameters.model_validate({**NUMBERS, **changes})


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("constant", [0, 0.5, *8 * [1]]),
        ("linear", [0, 0.5, *(left / 8 for left in range(8, 0, -1))]),
        ("cosine", [0, 0.5, *((1 + math.cos(math.pi * done / 8)) / 2 for done in range(8))]),
    ],
)
def test_the_learning_rate_warms_up_and_goes_as_its_schedule_says(kind: str, shares: list[float]) -> None:
    numbers = asked(learning_rate=LEARNING_RATE, lr_scheduler_type=kind, warmup_ratio=0.2)
    run = Run.begin(torch.nn.Linear(1, 1), config(hyperparameters=numbers), 10, ALONE)
    rates = []
    for _ in range(10):
        rates += run.schedule.get_last_lr()
        run.optimizer.step()
        run.schedule.step()
    assert rates == pytest.approx([share * LEARNING_RATE for share in shares])


def test_ranks_are_stabilised_on_request() -> None:
    assert [new_lora(asked(use_rslora=on)).use_rslora for on in (True, False)] == [True, False]


def test_gradients_are_clipped_to_the_norm_that_is_asked_for_and_told_as_they_were(tmp_path: Path) -> None:
    run, its, batches, told_to = started(tmp_path / "clipped")
    clipping = its.hyperparameters.model_copy(update={"max_grad_norm": 0.01})
    told = optimizer_step(run, batches, its.model_copy(update={"hyperparameters": clipping}), told_to)
    assert gradients(run).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert told["grad_norm"] > 0.02


def test_an_adapter_that_a_job_begins_with_is_trained_on_as_it_is(tmp_path: Path) -> None:
    earlier, its, batches, told_to = started(tmp_path / "earlier")
    optimizer_step(earlier, batches, its, told_to)
    save(earlier.model, tmp_path / "adapter", its, None)
    base = load_base(its.model_path, ALONE.device, its)
    sizes: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 1, "n_epochs": 1, "max_steps": None}
    plan = Plan(batches[0], **sizes, seed=0, by_length=False)
    goes_on = its.model_copy(update={"init_adapter": tmp_path / "adapter"})
    later = begin(base, goes_on, plan, tmp_path / "later", ALONE)
    assert all(before.equal(after) for before, after in zip(earlier.parameters, later.parameters, strict=True))
    assert later.step == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_base_of_four_bits_is_learned_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "qlora", use_qlora=True)
    config = (run / "config.json").read_text().replace('"device": "cpu"', '"device": "cuda"')
    (run / "config.json").write_text(config)
    assert finish(run) == 0, (run / "log.txt").read_text()
    steps = metrics(run, "step")
    assert steps[-1]["train_loss"] < steps[0]["train_loss"] / 2
