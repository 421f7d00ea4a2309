"""The supervised fine-tuning recipe, one page read downwards: python -m workers.sft RUN_DIR [MEETING].

MEETING is the file at which several processes that train one model find each other (see workers/ranks.py).
config.json in; metrics.jsonl, checkpoints/ and at last adapter/ out, which is a whole model after a full fine-tune.
Exit codes: 0 adapter/ is there, 75 stopped by SIGTERM (start it again to go on), 1 failed (the last line of
metrics.jsonl says why).
"""

import logging
import math
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from workers.attention import is_packing
from workers.base_model import load_base
from workers.batches import Microbatch, Plan, carve, count_loss_tokens, dealt, halves, in_order, n_tokens
from workers.chat_data import Example, load_encoder
from workers.loss import summed_loss, validate
from workers.run_folder import Metrics, appears_whole, checkpoint_folders
from workers.run_state import Run
from workers.sft_config import Config
from workers.sft_errors import FORESEEN, TrainingError, explain, out_of_memory_named
from workers.sharding import number_of, whole_weights
from workers.sound import require_change, require_numbers, require_sound
from workers.trackers import tracking
from workers.trained import begin_anew, begin_with, save
from workers.world import World

STOPPED_EXIT_CODE = 75  # EX_TEMPFAIL: nothing is wrong, try again
STATE_FILE = "trainer.pt"
TEMPLATE_FILE = "chat_template.jinja"
LINES_TOLD = 50
log = logging.getLogger("sft")
stop_asked = threading.Event()


class StopAsked(Exception):
    """SIGTERM came in the middle of an optimizer step."""


@out_of_memory_named()
def train(config: Config, run_dir: Path, metrics: Metrics, world: World) -> None:
    asked = config.hyperparameters

    # 1) model
    torch.manual_seed(config.seed)
    base = load_base(config.model_path, world.device, config)

    # 2) data
    encoder = load_encoder(
        config.model_path, max_seq_length=asked.max_seq_length, train_on_inputs=asked.train_on_inputs
    )
    examples = learnable(encoder.load(config.training_file), "training file", metrics)
    if config.validation_file:
        held_out = learnable(encoder.load(config.validation_file), "validation file", metrics)
    else:
        examples, held_out = carve(examples, asked.validation_split, config.seed)
    if asked.early_stopping_patience and not held_out:
        raise TrainingError(
            "no_validation_rows", "early_stopping_patience needs a validation_file or validation_split."
        )
    validation = in_order(held_out, asked.batch_size)
    plan = Plan(
        examples,
        batch_size=asked.batch_size,
        gradient_accumulation_steps=asked.gradient_accumulation_steps,
        n_epochs=asked.n_epochs,
        max_steps=asked.max_steps,
        seed=config.seed,
        by_length=not is_packing(base),
    )

    # 3) LoRA, or all weights: a checkpoint goes on, else a given fine-tune does, else a new one begins
    run = begin(base, config, plan, run_dir, world)
    metrics.write(
        "started",
        total_steps=plan.total_steps,
        n_rows=len({example.line for example in examples}),
        n_tokens=n_tokens(examples),
        resumed_from_step=run.step,
        trainable_parameters=sum(p.numel() for p in run.parameters),
    )

    # 4) train; with each checkpoint goes the template, since it is what was taught with
    template, probe = encoder.tokenizer.get_chat_template(), plan.examples[:1]
    keep = partial(save_checkpoint, run, run_dir, metrics, config, template, probe)
    saved_step = run.step
    while run.step < plan.total_steps and run.n_worse < (asked.early_stopping_patience or math.inf):
        try:
            told = optimizer_step(run, plan.microbatches(run.step + 1), config, metrics)
        except StopAsked:
            if run.step > saved_step:
                keep()
            raise
        epoch = round(run.step / plan.steps_per_epoch, 4)
        metrics.write("step", step=run.step, total_steps=plan.total_steps, epoch=epoch, **told)
        if validation and (run.step % plan.steps_per_epoch == 0 or run.step == plan.total_steps):
            told = validate(run.model, validation, world)
            require_numbers(run.step, told["valid_loss"])
            metrics.write("validation", step=run.step, **told)
            if asked.early_stopping_patience and run.improves_with(told["valid_loss"]):
                saved_step = keep()
        if run.step % config.checkpoint_every_steps == 0 and saved_step < run.step < plan.total_steps:
            saved_step = keep()

    # 5) publish
    publish(run, run_dir, config, template, probe)


def learnable(examples: list[Example], file: str, metrics: Metrics) -> list[Example]:
    kept = [example for example in examples if example.has_loss]
    if left_out := sorted({e.line for e in examples} - {e.line for e in kept}):
        metrics.write("left_out", file=file, n_rows=len(left_out), lines=left_out[:LINES_TOLD])
    if not kept:
        raise TrainingError(
            "no_trainable_tokens", "No row has an assistant token to learn within max_seq_length and its weights."
        )
    return kept


def begin(base: PreTrainedModel, config: Config, plan: Plan, run_dir: Path, world: World) -> Run:
    run = newest_run(base, config, plan, run_dir, world)
    world.require_same(run.step)
    return run


def newest_run(base: PreTrainedModel, config: Config, plan: Plan, run_dir: Path, world: World) -> Run:
    for folder in checkpoint_folders(run_dir / "checkpoints"):
        try:
            # weights_only: no code of a tampered file runs; and it is our own file
            device = "cpu" if config.is_full else world.device  # where there is room for all of it
            state = torch.load(folder / STATE_FILE, map_location=device, weights_only=True)
            model = begin_with(base, folder, config)
        except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError, ValueError) as error:
            log.warning("%s is not sound, trying the one before: %s", folder.name, error)
            continue
        run = Run.begin(model, config, plan.total_steps, world)
        run.go_on_from(state)
        return run
    begun = begin_with(base, config.init_adapter, config) if config.init_adapter else begin_anew(base, config)
    return Run.begin(begun, config, plan.total_steps, world)


def optimizer_step(run: Run, microbatches: list[Microbatch], config: Config, metrics: Metrics) -> dict[str, float]:
    started_at = time.monotonic()
    n_loss_tokens = sum(map(count_loss_tokens, microbatches))
    total_loss, n_correct = learn_what_fits(run, microbatches, n_loss_tokens, config, metrics)
    if not run.is_sharded:
        run.world.add_gradients(run.parameters)
    max_norm = config.hyperparameters.max_grad_norm or math.inf
    grad_norm = number_of(torch.nn.utils.clip_grad_norm_(run.parameters, max_norm))
    run.train_loss = total_loss / n_loss_tokens
    require_numbers(run.step + 1, run.train_loss, grad_norm)
    learning_rate = run.schedule.get_last_lr()[0]
    run.optimizer.step()
    run.schedule.step()
    run.step += 1
    seen_tokens = sum(map(n_tokens, microbatches))
    run.trained_tokens += seen_tokens
    return {
        "train_loss": run.train_loss,
        "train_mean_token_accuracy": n_correct / n_loss_tokens,
        "learning_rate": learning_rate,
        "grad_norm": grad_norm,
        "tokens_per_second": seen_tokens / (time.monotonic() - started_at),
        "trained_tokens": run.trained_tokens,
    }


def learn_what_fits(
    run: Run, microbatches: list[Microbatch], n_loss_tokens: int, config: Config, metrics: Metrics
) -> list[float]:
    """Once in a run half as many rows go at once, if memory runs out; a step has the same rows as before."""
    asked = config.hyperparameters
    mine = dealt(microbatches, run.world.size, asked.batch_size)[run.world.rank]
    if not run.in_halves:
        try:
            return learn(run, mine, n_loss_tokens, config.seed)
        except torch.OutOfMemoryError:
            if run.is_sharded or max(map(len, microbatches)) == 1:
                raise
            log.exception("out of memory, going on with half as many rows at once")
        # Out here the traceback is gone, and with it the tensors of the step that failed.
        run.in_halves = True
        torch.cuda.empty_cache()
        metrics.write(
            "halved",
            step=run.step + 1,
            batch_size=-(-asked.batch_size // 2),
            gradient_accumulation_steps=2 * asked.gradient_accumulation_steps,
        )
    return learn(run, halves(mine), n_loss_tokens, config.seed)


def learn(run: Run, microbatches: list[Microbatch], n_loss_tokens: int, seed: int) -> list[float]:
    """The gradients of this rank's rows; the loss and the right guesses of all ranks'."""
    # Dropout hangs on step and rank alone, so that a resumed run goes the very way of an undisturbed one.
    torch.manual_seed(seed + run.step + (run.world.rank << 32))
    run.optimizer.zero_grad()
    if run.is_sharded:  # each pass takes all ranks: none may leave the others in the middle of it
        with run.world.together(StopAsked):
            stop_if_asked()
        found = backward(run, microbatches, n_loss_tokens / run.world.size)  # the gradients' mean over ranks is taken
    else:
        with run.world.together(StopAsked, torch.OutOfMemoryError):
            found = backward(run, microbatches, n_loss_tokens, before_each=stop_if_asked)
    return run.world.sums(*found)


def stop_if_asked() -> None:
    if stop_asked.is_set():
        raise StopAsked


@out_of_memory_named()
def backward(
    run: Run, microbatches: list[Microbatch], divisor: float, before_each: Callable[[], None] = lambda: None
) -> tuple[float, int]:
    total_loss, n_correct = 0.0, 0
    for batch in microbatches:
        before_each()
        loss, correct = summed_loss(run.model, batch)
        # By the tokens of the whole step: a mean of means would weigh short answers more than long ones.
        (loss / divisor).backward()
        total_loss += loss.item()
        n_correct += correct
    return total_loss, n_correct


def save_checkpoint(run: Run, run_dir: Path, metrics: Metrics, config: Config, template: str, probe: Microbatch) -> int:
    """The step that it is of."""
    require_sound(run, probe)
    whole, state = whole_weights(run.model), run.state()  # all ranks have to give their parts
    if not run.world.is_first:
        return run.step
    name = f"checkpoints/step-{run.step}"
    with appears_whole(run_dir / name) as folder:
        save(run.model, folder, config, whole)
        (folder / TEMPLATE_FILE).write_text(template, "utf-8")
        torch.save(state, folder / STATE_FILE)
    metrics.write("checkpoint", step=run.step, path=name, train_loss=run.train_loss)
    for old in checkpoint_folders(run_dir / "checkpoints")[config.keep_checkpoints :]:
        if old.name != f"step-{run.best_step}":
            shutil.rmtree(old)
    return run.step


def publish(run: Run, run_dir: Path, config: Config, template: str, probe: Microbatch) -> None:
    require_sound(run, probe)
    whole = whole_weights(run.model)
    if not run.world.is_first:
        return
    with appears_whole(run_dir / "adapter") as folder:
        if run.was_better:
            shutil.copytree(run_dir / f"checkpoints/step-{run.best_step}", folder, dirs_exist_ok=True)
            (folder / STATE_FILE).unlink()
        else:
            save(run.model, folder, config, whole, is_final=True)
        require_change(folder, config)
        (folder / TEMPLATE_FILE).write_text(template, "utf-8")


def main(run_dir: Path, meeting: Path | None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: stop_asked.set())
    config = Config.model_validate_json((run_dir / "config.json").read_bytes())
    world = World.join(config.device, meeting)
    metrics = Metrics(run_dir / "metrics.jsonl", is_first=world.is_first)
    try:
        if not (run_dir / "adapter").exists():
            with tracking(metrics, config, run_dir):
                train(config, run_dir, metrics, world)
        metrics.finish()
    except StopAsked:
        return STOPPED_EXIT_CODE
    except FORESEEN as error:
        code, message = explain(error)
        log.exception(message)
        metrics.write("error", code=code, message=message)
        return 1
    world.leave()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    disable_progress_bar()
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None))
