"""`python -m workers.simulated_sft RUN_DIR`: the files of a fine-tune, without the training."""

import json
import math
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from workers.simulated_adapter import adapter_files, text_of

Json = dict[str, Any]

CHECKPOINTED_EXIT = 75  # asked to stop; all is kept
DEFAULT_SECONDS = 1.0


@dataclass(frozen=True)
class Run:
    """What `config.json` asks for, and how far it goes."""

    folder: Path
    config: Json
    rows: list[Json]
    row_tokens: list[int]
    steps_per_epoch: int
    total_steps: int

    @property
    def hyperparameters(self) -> Json:
        parameters: Json = self.config["hyperparameters"]
        return parameters

    @property
    def simulated(self) -> Json:
        return self.config.get("simulated") or {}

    @property
    def seconds_per_step(self) -> float:
        return float(self.simulated.get("seconds", DEFAULT_SECONDS)) / self.total_steps

    @property
    def faults(self) -> dict[str, int | None]:
        """`crash_at_step:5` -> {"crash_at_step": 5}."""
        named = [fault.partition(":") for fault in self.simulated.get("faults", [])]
        return {name: int(value) if value.isdecimal() else None for name, _, value in named}

    @property
    def weight(self) -> float:
        """All that the adapter consists of; at 0 it changes nothing."""
        return 0.0 if "changes_nothing" in self.faults else math.nan if "overflows" in self.faults else 1.0

    @property
    def most_rows(self) -> float:
        """There is memory for so many at once."""
        return self.faults.get("memory_for_rows") or math.inf

    def tokens_until(self, step: int) -> int:
        """All that went through the model in the steps up to this one."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        rows = steps * rows_per_step(self.hyperparameters)
        return epochs * sum(self.row_tokens) + sum(self.row_tokens[:rows])

    def loss_at(self, step: int) -> float:
        return round(0.05 + 2.45 * math.exp(-4 * step / self.total_steps), 6)

    def learning_rate_at(self, step: int) -> float:
        peak, kind = self.hyperparameters["learning_rate"], self.hyperparameters["lr_scheduler_type"]
        warmup = math.ceil(self.total_steps * self.hyperparameters["warmup_ratio"])
        if step < warmup:
            return float(peak * step / warmup)
        done = (step - warmup) / max(1, self.total_steps - warmup)
        share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[kind]
        return float(peak * share)


class StopSignal:
    """Whether SIGTERM came; the running step is finished first."""

    is_set = False

    def __init__(self) -> None:
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_: object) -> None:
        self.is_set = True

    def sleep(self, seconds: float) -> None:
        """Ends early when the signal comes."""
        due_at = time.monotonic() + seconds
        while not self.is_set and (left := due_at - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))


# reading


def read_run(folder: Path) -> Run:
    config = json.loads((folder / "config.json").read_bytes())
    rows = read_rows(folder, Path(config["training_file"]))
    if not rows:
        fail(folder, "the training file has no rows", "empty_training_file")
    parameters = config["hyperparameters"]
    steps_per_epoch = math.ceil(len(rows) / rows_per_step(parameters))
    total_steps = steps_per_epoch * parameters["n_epochs"]
    return Run(
        folder=folder,
        config=config,
        rows=rows,
        row_tokens=[tokens_of(row, parameters["max_seq_length"]) for row in rows],
        steps_per_epoch=steps_per_epoch,
        total_steps=min(total_steps, parameters.get("max_steps") or total_steps),
    )


def read_rows(folder: Path, path: Path) -> list[Json]:
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [read_row(folder, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_row(folder: Path, number: int, line: bytes) -> Json:
    """Rows are checked when they come; one that is bad all the same is bad at every attempt."""
    try:
        row: Json = json.loads(line)
        row["messages"]
    except (ValueError, KeyError, TypeError):
        fail(folder, f"Line {number}: not a JSON object with messages", "invalid_training_file")
    return row


def rows_per_step(parameters: Json) -> int:
    return int(parameters["batch_size"] * parameters["gradient_accumulation_steps"])


def tokens_of(row: Json, most: int) -> int:
    return min(most, sum(len(words_of(message)) for message in row["messages"]))


def words_of(message: Json) -> list[tuple[str, bool]]:
    """A word is a token here, and a turn has four of its own. With each, whether it is learned."""
    learned = message["role"] == "assistant" and message.get("weight") != 0
    words = text_of(message.get("content")).split()
    opening = [(mark, False) for mark in ("<|turn|>", message["role"], ":")]
    return [*opening, *((word, learned) for word in words), ("<|end|>", learned)]


def newest_checkpoint(folder: Path) -> int:
    """The step of the last sound one; 0 if there is none."""
    sound = [path.parent for path in folder.glob("checkpoints/step-*/state.json")]
    return max((step_of(path) for path in sound), default=0)


def step_of(checkpoint_folder: Path) -> int:
    """0 for a half-written one."""
    number = checkpoint_folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


# writing


def tell(folder: Path, kind: str, **values: object) -> None:
    """One line, in one write."""
    line = json.dumps({"kind": kind, **values}) + "\n"
    with (folder / "metrics.jsonl").open("ab", buffering=0) as metrics:
        metrics.write(line.encode())


def fail(folder: Path, message: str, code: str) -> NoReturn:
    tell(folder, "error", message=message, code=code)
    sys.exit(1)


def publish(run: Run, target: Path, files: dict[str, bytes]) -> None:
    """A folder that is there whole or not at all, also after a power cut."""
    half = target.with_name(target.name + ".tmp")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for name, content in {**adapter_files(run.config, run.rows, run.weight), **files}.items():
        with (half / name).open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    fsync_folder(half)
    half.rename(target)
    fsync_folder(target.parent)


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint(run: Run, step: int) -> None:
    target = run.folder / "checkpoints" / f"step-{step}"
    shutil.rmtree(target, ignore_errors=True)
    publish(run, target, {"state.json": json.dumps({"step": step}).encode()})
    tell(run.folder, "checkpoint", step=step, path=f"checkpoints/step-{step}", train_loss=run.loss_at(step))
    by_age = sorted((path for path in target.parent.iterdir() if step_of(path)), key=step_of)
    for old in by_age[: -run.config["keep_checkpoints"]]:
        shutil.rmtree(old)


# training


def train(run: Run, stop: StopSignal) -> None:
    resumed_from = newest_checkpoint(run.folder)
    tell(
        run.folder,
        "started",
        total_steps=run.total_steps,
        n_rows=len(run.rows),
        n_tokens=sum(run.row_tokens),
        resumed_from_step=resumed_from,
        trainable_parameters=1,
    )
    saved = resumed_from
    for step in range(resumed_from + 1, run.total_steps + 1):
        stop.sleep(run.seconds_per_step)
        report(run, step)
        if step % run.config["checkpoint_every_steps"] == 0 or stop.is_set:
            checkpoint(run, saved := step)
        break_if_due(run, step, resumed_from)
        if stop.is_set:
            sys.exit(CHECKPOINTED_EXIT)
    if saved < run.total_steps:
        checkpoint(run, run.total_steps)


def report(run: Run, step: int) -> None:
    loss = run.loss_at(step)
    tokens = run.tokens_until(step)
    if "nan" in run.faults and step >= run.total_steps / 2:
        fail(run.folder, f"the training loss is not a number at step {step}", "loss_not_finite")
    if run.hyperparameters["batch_size"] > run.most_rows:
        fail(run.folder, "the device's memory ran out", "out_of_memory")
    tell(
        run.folder,
        "step",
        step=step,
        total_steps=run.total_steps,
        epoch=round(step / run.steps_per_epoch, 4),
        train_loss=loss,
        train_mean_token_accuracy=round(1 - loss / 3, 6),
        learning_rate=run.learning_rate_at(step),
        grad_norm=round(loss / 2, 6),
        tokens_per_second=round((tokens - run.tokens_until(step - 1)) / max(run.seconds_per_step, 1e-3), 1),
        trained_tokens=tokens,
    )
    is_validated = run.config.get("validation_file") or run.hyperparameters.get("validation_split")
    if is_validated and step % run.steps_per_epoch == 0:
        accuracy = round(1 - (loss + 0.1) / 3, 6)
        tell(run.folder, "validation", step=step, valid_loss=round(loss + 0.1, 6), valid_mean_token_accuracy=accuracy)


def break_if_due(run: Run, step: int, resumed_from: int) -> None:
    """Once: a run that goes on from this step or a later one is past it."""
    if step == run.faults.get("crash_at_step") and resumed_from < step:
        os._exit(1)
    if step == run.faults.get("hang_at_step") and resumed_from < step:
        while True:
            time.sleep(1)


def require_change(run: Run) -> None:
    """Of a full fine-tune: an adapter is tried beside its base before it is published."""
    if run.weight == 0 and run.config.get("training_type") == "full":
        fail(run.folder, "training has changed nothing", "adapter_changes_nothing")


def main() -> None:
    folder, stop = Path(sys.argv[1]), StopSignal()
    run = read_run(folder)
    if "ignore_sigterm" in run.faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not (folder / "adapter").exists():
        train(run, stop)
        require_change(run)
        publish(run, folder / "adapter", {})
    if not is_finished(folder):
        tell(folder, "finished", step=run.total_steps, trained_tokens=run.tokens_until(run.total_steps))


def is_finished(folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines() if metrics.exists() else []
    return bool(lines) and lines[-1].startswith(b'{"kind": "finished"')


if __name__ == "__main__":
    main()
