"""A full fine-tune by the real recipe: a model of its own, whatever number of processes train it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.eventually import until
from tests.workers.forks import status
from tests.workers.recipes import finish, two_ranks
from tests.workers.test_ranks import run_of_nine
from tests.workers.test_sft import metrics

pytestmark = pytest.mark.training


def full_run(folder: Path, *, is_validated: bool = True, **hyperparameters: Any) -> Path:
    run = run_of_nine(folder, **{"packing": True, "learning_rate": 0.001, "n_epochs": 3, **hyperparameters})
    config = json.loads((run / "config.json").read_bytes())
    changes = {"training_type": "full", **({} if is_validated else {"validation_file": None})}
    (run / "config.json").write_text(json.dumps({**config, **changes}))
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
    with two_ranks(run) as ranks:
        until(lambda: len(metrics(run, "checkpoint")) == 1, within_seconds=120)
        for rank in ranks:
            rank.terminate()
        assert {status(rank) for rank in ranks} <= {0, 75}, (run / "log.txt").read_text()
    ours, theirs = (weights(each / "checkpoints" / "step-3") for each in (run, undisturbed))
    assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("hyperparameters", "code"),
    [
        ({"learning_rate": 1e30, "warmup_ratio": 0.0}, "loss_not_finite"),
        ({"warmup_ratio": 1.0}, "adapter_changes_nothing"),
    ],
    ids=["weights that are no numbers", "nothing learned"],
)
def test_what_is_not_fit_to_be_published_is_seen_by_several_processes_too(
    tmp_path: Path, hyperparameters: dict[str, float], code: str
) -> None:
    run = full_run(tmp_path / "run", is_validated=False, max_steps=1, **hyperparameters)
    with two_ranks(run) as ranks:
        assert 1 in [status(rank) for rank in ranks]
    assert {error["code"] for error in metrics(run, "error")} == {code}, (run / "log.txt").read_text()
    assert not (run / "adapter").exists()
