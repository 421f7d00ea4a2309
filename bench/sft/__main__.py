"""`python -m bench.sft`: tokens/s, memory and loss of our recipe beside TRL's SFTTrainer, in turns in one run."""

import json
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from app.devices.inventory import cpu_threads
from app.settings import ROOT
from bench.machine import SCRATCH, facts
from bench.sft.rows import ragged_chats, sentences_of
from bench.sft.sides import TRL, Side, SideFailed, Trained, install_trl, train
from bench.show import out, show, telling, write
from bench.summary import Summary

RESULTS = Path(__file__).parent.parent / "results" / "sft.md"
N_ROWS, SEED, ROWS_A_STEP, LONGEST_ROW = 240, 7, 8, 1024
# Packed, TRL counts filled sequences of `max_seq_length`: one holds about as many of these rows as our steps do.
SIDES = [
    Side("loam", ROWS_A_STEP),
    Side("trl", ROWS_A_STEP, trl={}),
    Side("trl, by length", ROWS_A_STEP, trl={"train_sampling_strategy": "group_by_length"}),
    Side("loam, packed", ROWS_A_STEP, packing=True),
    Side("trl, packed", 1, trl={"packing": True}),
]
QUARTERS = [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
HEADINGS = ["side", "tokens/s", "MiB at most", *(f"loss, quarter {n}" for n in (1, 2, 3, 4))]
HEAD = """\
# Our recipe beside TRL's SFTTrainer

The demo model, LoRA on all linear layers, {n_rows} ragged chats of up to {longest} tokens, fp32 on the CPU, {rows}
rows a step: the same for all, in turns in one run; the median of {rounds} rounds (least..most). Tokens are those of
the rows, padding not counted. Memory is the process at its largest, what it has imported included.\
"""
NUMBERS: dict[str, Any] = {
    "n_epochs": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0.002,
    "warmup_ratio": 0.05,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_seq_length": LONGEST_ROW,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
    "use_qlora": False,
    "train_on_inputs": False,
    "gradient_checkpointing": False,
}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each side trains.")] = 3,
    sides: Annotated[str, typer.Option(help="Which, by the beginning of their names: loam,trl")] = "loam,trl",
) -> None:
    """Written to bench/results/sft.md when all sides are measured."""
    chosen = [side for side in SIDES if side.name.startswith(tuple(sides.split(",")))]
    try:
        install_trl()
        results = _measure(chosen, rounds)
    except (SideFailed, subprocess.CalledProcessError) as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    told = {**facts(), "trainers": f"{TRL}, torch {version('torch')}, transformers {version('transformers')}"}
    lines = [_line(side, results[side.name]) for side in chosen]
    show(HEADINGS, lines, told)
    if chosen == SIDES:
        head = HEAD.format(n_rows=N_ROWS, longest=LONGEST_ROW, rows=ROWS_A_STEP, rounds=rounds)
        write(RESULTS, head, HEADINGS, lines, told)


def _measure(sides: list[Side], rounds: int) -> dict[str, list[Trained]]:
    results: dict[str, list[Trained]] = {side.name: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder, telling(rounds * len(sides)) as tell:
        config = _config(Path(folder))
        for number in range(rounds):
            for at, side in enumerate(sides):
                tell(f"round {number + 1}/{rounds} · {side.name}")
                run_dir, seeded = Path(folder) / f"{number}-{at}", {**config, "seed": SEED + number}
                results[side.name].append(train(side, run_dir, seeded, cpu_threads()))
    return results


def _config(folder: Path) -> dict[str, Any]:
    sentences = sentences_of((ROOT / "demo" / "train.jsonl").read_text("utf-8"))
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ragged_chats(sentences, N_ROWS, SEED)), "utf-8")
    return {
        "job_id": "bench",
        "model_path": str(ROOT / "demo" / "model"),
        "served_model": "loam/demo",
        "training_file": str(data),
        "validation_file": None,
        "init_adapter": None,
        "device": "cpu",
        "seed": SEED,
        "checkpoint_every_steps": N_ROWS,
        "keep_checkpoints": 1,
        "hyperparameters": NUMBERS,
    }


def _line(side: Side, runs: list[Trained]) -> list[str]:
    figures = [
        [run.tokens_per_second for run in runs],
        [run.peak_bytes / (1 << 20) for run in runs],
        *([run.loss_between(*quarter) for run in runs] for quarter in QUARTERS),
    ]
    return [side.name, *(summary.with_range for own in figures if (summary := Summary.of(own)))]


if __name__ == "__main__":
    typer.run(main)
