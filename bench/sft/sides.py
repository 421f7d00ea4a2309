"""The sides: our recipe as it ships, and TRL's trainer in an environment of its own; each a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path
from typing import Any

from app.settings import ROOT

TRL = "trl==1.16.0"
TRL_HOME = Path(__file__).parent.parent / ".envs" / "trl"
TRL_SIDE = Path(__file__).parent / "trl_side.py"
WARMUP_STEPS = 3  # allocators and kernels find their sizes


class SideFailed(Exception):
    """The message has the side's last words."""


@dataclass(frozen=True)
class Side:
    """`packing` and `trl`: what its trainer is told that the others are not; `batch_size` is in its own sequences."""

    name: str
    batch_size: int
    packing: bool = False
    trl: dict[str, Any] | None = None

    def argv(self, run_dir: Path) -> list[str]:
        if self.trl is None:
            return [sys.executable, "-m", "workers.sft", str(run_dir)]
        return [str(TRL_HOME / "bin" / "python"), str(TRL_SIDE), str(run_dir)]


@dataclass(frozen=True)
class Trained:
    """One run: what it took, and the loss after each step with the tokens seen until then."""

    tokens_per_second: float
    peak_bytes: int
    losses: list[tuple[int, float]]

    def loss_between(self, start: float, end: float) -> float:
        """The mean over the tokens of a share of the run: steps of different sides hold different rows."""
        seen = [0, *(tokens for tokens, _ in self.losses)]
        steps = [
            (seen[n + 1] - seen[n], loss)
            for n, (_, loss) in enumerate(self.losses)
            if start < seen[n + 1] / seen[-1] <= end
        ]
        return sum(tokens * loss for tokens, loss in steps) / sum(tokens for tokens, _ in steps)


def train(side: Side, run_dir: Path, config: dict[str, Any], threads: int) -> Trained:
    """Raises SideFailed."""
    run_dir.mkdir(parents=True)
    numbers = {**config["hyperparameters"], "batch_size": side.batch_size, "packing": side.packing}
    (run_dir / "config.json").write_text(json.dumps({**config, "hyperparameters": numbers, "trl": side.trl or {}}))
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (run_dir / "log.txt").open("wb") as log:
        child = subprocess.Popen(side.argv(run_dir), stdout=log, stderr=log, env=env, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SideFailed(f"{side.name}: {(run_dir / 'log.txt').read_text()[-600:]}")
    steps = [line for line in _lines(run_dir / "metrics.jsonl") if line["kind"] == "step"]
    first, last = steps[WARMUP_STEPS - 1], steps[-1]
    speed = (last["trained_tokens"] - first["trained_tokens"]) / (last["at"] - first["at"])
    return Trained(speed, usage.ru_maxrss * 1024, [(s["trained_tokens"], s["train_loss"]) for s in steps])


def install_trl() -> None:
    """Its own packages in an environment that sees ours, so that torch, transformers and peft are the very same."""
    done = TRL_HOME / f".installed-{TRL}"
    if done.exists():
        return
    python = TRL_HOME / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(TRL_HOME)], check=True)
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = subprocess.run([str(python), "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    (Path(theirs) / "loam.pth").write_text(get_path("purelib") + "\n")
    subprocess.run([str(python), "-m", "pip", "install", "-q", TRL], check=True)
    done.touch()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text().splitlines())
