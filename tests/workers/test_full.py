"""A full fine-tune by the real recipe: a model of its own, whatever number of processes train it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.eventually import until
from tests.workers.test_ranks import run_of_nine, two_ranks
from tests.workers.test_sft import finish, metrics

pytestmark = pytest.mark.training


def full_run(folder: Path) -> Path:
    run = run_of_nine(folder, packing=True, learning_rate=0.001, n_epochs=3)
    config = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps({**config, "training_type": "full"}))
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = full_run(tmp_path_factory.mktemp("full") / "undisturbed")
    assert finish(run) == 0, (run / "log.txt").read_text()
    return run


def test_a_full_fine_tune_leaves_a_whole_model_as_narrow_as_its_base(undisturbed: Path) -> None:
    losses = [step["train_loss"] for step in metrics(undisturbed, "step")]
    assert losses[-1] < losses[0] / 2
    for folder in (undisturbed / "adapter", undisturbed / "checkpoints" / "step-6"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert (model.dtype, model.num_parameters()) == (
            torch.bfloat16,
            metrics(undisturbed, "started")[0]["trainable_parameters"],
        )
        assert "<|im_start|>" in AutoTokenizer.from_pretrained(folder).get_chat_template()
    assert all(weight.dtype == torch.float32 for weight in weights(undisturbed / "checkpoints" / "step-6").values())


def test_a_full_fine_tune_that_goes_on_ends_with_the_same_weights(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "step-6")
    assert finish(run) == 0, (run / "log.txt").read_text()
    assert metrics(run, "started")[-1]["resumed_from_step"] == 3
    ours, theirs = weights(run / "adapter"), weights(undisturbed / "adapter")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_several_processes_train_the_same_weights_as_one(undisturbed: Path, tmp_path: Path) -> None:
    run = full_run(tmp_path / "both")
    with two_ranks(run) as process:
        until(lambda: len(metrics(run, "checkpoint")) == 1, within_seconds=120)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) in (0, 75), (run / "log.txt").read_text()
    ours, theirs = (weights(each / "checkpoints" / "step-3") for each in (run, undisturbed))
    assert_close(ours, theirs, rtol=0, atol=1e-4)
