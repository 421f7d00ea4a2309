"""Several processes train what one would have, and end together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.eventually import until
from tests.workers.forks import status
from tests.workers.recipes import finish, two_ranks
from tests.workers.test_sft import make_run, metrics

pytestmark = pytest.mark.training

# Of different lengths, and so many that one rank has no row in the last step of an epoch.
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is number {i}?"},
            {"role": "assistant", "content": f"It is {i}." + " Really." * (i * i % 13)},
        ]
    }
    for i in range(9)
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_of_nine(folder: Path, **hyperparameters: Any) -> Path:
    return make_run(folder, ROWS, **{"n_epochs": 2, "lora_dropout": 0.0, **hyperparameters})


@contextmanager
def launched(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Two ranks in a group of their own, as the worker starts them. None of them outlives it."""
    with (run / "log.txt").open("ab") as log:
        argv = [sys.executable, "-m", "workers.ranks", "2", str(run)]
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=ENV, start_new_session=True)
    try:
        yield process
        until(lambda: not members(process.pid), within_seconds=5)
    finally:
        for member in members(process.pid):
            member.kill()
        process.wait(10)


def members(group: int) -> list[psutil.Process]:
    def is_alive(process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    return [process for process in psutil.process_iter() if is_alive(process)]


def ranks_of(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(launcher.pid).children()


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, other))
    assert_close(ours, theirs, rtol=0, atol=2e-4)  # of weights up to 0.07


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    alone, both = (run_of_nine(tmp_path / name, packing=True) for name in ("alone", "both"))
    assert finish(alone) == 0
    with two_ranks(both) as ranks:
        assert [status(rank) for rank in ranks] == [0, 0], (both / "log.txt").read_text()
    assert_same_weights(alone, both)
    for kind, loss in (("step", "train_loss"), ("validation", "valid_loss")):
        ours, theirs = ([record[loss] for record in metrics(run, kind)] for run in (both, alone))
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert [record["step"] for record in metrics(both, "checkpoint")] == [3]
    assert len(metrics(both, "started")) == len(metrics(both, "finished")) == 1


def test_all_stop_at_the_same_step_and_any_number_of_processes_goes_on(tmp_path: Path) -> None:
    alone, stopped = (run_of_nine(tmp_path / name, packing=False, n_epochs=6) for name in ("alone", "stopped"))
    assert finish(alone) == 0
    with launched(stopped) as process:
        until(lambda: metrics(stopped, "step"), within_seconds=120)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) == 75, (stopped / "log.txt").read_text()
    assert not (stopped / "adapter").exists()
    assert finish(stopped) == 0
    assert metrics(stopped, "started")[-1]["resumed_from_step"] >= 1
    assert_same_weights(alone, stopped)


def test_a_rank_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    with launched(run_of_nine(tmp_path / "run")) as process:
        first, second = until(lambda: ranks if len(ranks := ranks_of(process)) == 2 else None)
        second.kill()
        assert process.wait(10) == -signal.SIGKILL
    assert not first.is_running()


def test_ranks_die_with_who_started_them(tmp_path: Path) -> None:
    with launched(run_of_nine(tmp_path / "run")) as process:
        until(lambda: len(ranks_of(process)) == 2)
        process.kill()
