"""What is measured, told to TensorBoard and, where the job asks for it, to Weights & Biases: by their own libraries.

Neither is worth a training: one that fails is told of, and left out from then on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from workers.run_folder import Metrics
from workers.sft_config import Config

log = logging.getLogger("trackers")

TENSORBOARD = "tensorboard"
CURVES = {
    "train_loss": "train/loss",
    "train_mean_token_accuracy": "train/accuracy",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_second": "train/tokens_per_second",
    "trained_tokens": "train/tokens",
    "valid_loss": "val/loss",
    "valid_mean_token_accuracy": "val/accuracy",
}
WANDB_SECONDS = 30.0  # to reach it at the start, and for what is left to be told at the end

Point = Callable[[int, Mapping[str, float]], None]  # the step, and the curves that have a value there


@contextmanager
def tracking(metrics: Metrics, config: Config, run_dir: Path) -> Iterator[None]:
    """From the start of the training on, for as long as the block runs."""
    trackers = Trackers(metrics, config, run_dir)
    metrics.also = trackers.tell
    try:
        yield
    finally:
        trackers.close()


class Trackers:
    def __init__(self, metrics: Metrics, config: Config, run_dir: Path) -> None:
        self._metrics = metrics
        self._config = config
        self._run_dir = run_dir
        self._open: dict[str, Any] = {}

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "started":
            self._begin("TensorBoard", lambda: EventFiles(self._run_dir / TENSORBOARD, fields["resumed_from_step"]))
            if self._config.wandb:
                self._begin("Weights & Biases", lambda: WandbRun(self._config, self._run_dir))
        elif kind in ("step", "validation"):
            point = {name: fields[key] for key, name in CURVES.items() if key in fields}
            for name, tracker in list(self._open.items()):
                self._try(name, lambda: tracker.add(fields["step"], point))  # noqa: B023 - called at once

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)

    def _begin(self, name: str, begin: Callable[[], Any]) -> None:
        self._try(name, lambda: self._open.update({name: begin()}))

    def _try(self, name: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            log.exception("%s is left out from now on", name)
            self._open.pop(name, None)
            self._metrics.write("untracked", tracker=name, reason=type(error).__name__)


class EventFiles:
    """Steps behind a checkpoint that a run goes on from were told before, and are told anew."""

    def __init__(self, folder: Path, resumed_from_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=resumed_from_step + 1)

    def add(self, step: int, point: Mapping[str, float]) -> None:
        for name, value in point.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a run that is killed closes nothing

    def close(self) -> None:
        self._writer.close()


class WandbRun:
    """Of the account that the worker's environment names. It knows nothing of this host but how busy it is."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        import wandb  # noqa: PLC0415 - an extra

        assert config.wandb
        self._run = wandb.init(
            **{"name": config.job_id, **config.wandb.model_dump(exclude_none=True)},
            id=config.job_id,
            resume="allow",
            dir=run_dir,
            config=config.hyperparameters.model_dump(),
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                x_disable_meta=True,
                x_save_requirements=False,
                init_timeout=WANDB_SECONDS,
                finish_timeout=WANDB_SECONDS,
            ),
        )

    def add(self, step: int, point: Mapping[str, float]) -> None:
        self._run.log(dict(point), step=step)

    def close(self) -> None:
        self._run.finish()
