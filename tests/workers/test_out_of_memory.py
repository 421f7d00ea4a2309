"""A step for which memory runs out is done again in halves, once, and teaches the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.workers.test_sft import make_run, metrics
from workers.base_model import load_base
from workers.batches import Microbatch, Plan, n_tokens
from workers.chat_data import ChatEncoder
from workers.run_folder import Metrics
from workers.run_state import Run
from workers.sft import begin, optimizer_step
from workers.sft_config import Config
from workers.world import World

pytestmark = pytest.mark.training


def allocate_too_much_of_a_gpu() -> None:
    raise torch.OutOfMemoryError


def allocate_too_much_of_the_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


class SmallDevice:
    """Has memory for so many tokens at once."""

    def __init__(self, run: Run, n_tokens: int, allocate_too_much: Callable[[], None]) -> None:
        self.n_tokens = n_tokens
        self.allocate_too_much = allocate_too_much
        decoder = run.model.get_base_model().get_decoder()
        decoder.register_forward_pre_hook(self.forward, with_kwargs=True)

    def forward(self, _: Any, args: Any, inputs: dict[str, Any]) -> None:
        if inputs["input_ids"].numel() > self.n_tokens:
            self.allocate_too_much()


def started(folder: Path) -> tuple[Run, Config, list[Microbatch], Metrics]:
    """A run that has not made its first step, of four rows at once."""
    make_run(folder, packing=True, lora_dropout=0.0)
    config = Config.model_validate_json((folder / "config.json").read_bytes())
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(config.model_path)
    examples = ChatEncoder(tokenizer, max_seq_length=256, train_on_inputs=False).load(config.training_file)
    sizes: dict[str, Any] = {"batch_size": 4, "gradient_accumulation_steps": 1, "n_epochs": 1, "max_steps": None}
    plan = Plan(examples, **sizes, seed=0, by_length=False)
    world = World(torch.device("cpu"))
    base = load_base(config.model_path, world.device, config)
    return begin(base, config, plan, folder, world), config, plan.microbatches(1), Metrics(folder / "metrics.jsonl")


def gradients(run: Run) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in run.parameters if p.grad is not None])


@pytest.mark.parametrize("allocate_too_much", [allocate_too_much_of_a_gpu, allocate_too_much_of_the_cpu])
def test_a_step_in_halves_teaches_what_the_whole_would_have(
    tmp_path: Path, allocate_too_much: Callable[[], None]
) -> None:
    roomy, config, [batch], told = started(tmp_path / "roomy")
    small, _, _, told_of_small = started(tmp_path / "small")
    SmallDevice(small, max(n_tokens(batch[:2]), n_tokens(batch[2:])), allocate_too_much)
    wanted, had = (optimizer_step(run, [batch], config, to) for run, to in ((roomy, told), (small, told_of_small)))
    torch.testing.assert_close(gradients(small), gradients(roomy), rtol=1e-3, atol=1e-5)
    assert had["train_loss"] == pytest.approx(wanted["train_loss"])
    assert metrics(tmp_path / "roomy", "halved") == []
    [halved] = metrics(tmp_path / "small", "halved")
    assert (halved["step"], halved["batch_size"], halved["gradient_accumulation_steps"]) == (1, 1, 4)


def test_memory_that_runs_out_for_halves_too_ends_the_run(tmp_path: Path) -> None:
    run, config, batches, told = started(tmp_path / "tiny")
    SmallDevice(run, 1, allocate_too_much_of_the_cpu)
    with pytest.raises(torch.OutOfMemoryError):
        optimizer_step(run, batches, config, told)
    assert len(metrics(tmp_path / "tiny", "halved")) == 1
