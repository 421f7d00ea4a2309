"""`python -m bench.estimate`: what a job was forecast to take, beside what real short trainings on the CPU took."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from app.catalog.load import load_catalog
from app.catalog.spec import GpuChoice
from app.devices.inventory import cpu_threads
from app.files.row_statistics import RowLengths
from app.files.training_file import check
from app.jobs import estimate
from app.settings import ROOT
from bench.machine import SCRATCH, facts
from bench.sft.__main__ import NUMBERS
from bench.sft.rows import sentences_of
from bench.sft.sides import Side, train
from bench.show import show, telling, write

DEMO = ROOT / "demo" / "model"
N_STEPS = 8
RESULTS = Path(__file__).parent / "results" / "estimate.md"
HEAD = """\
# What a job was forecast to take

Beside what it took on the CPU: the demo model and one of 15 million random weights, {steps} steps each. 1 is a
forecast that came true, less one that was too low. Tokens are forecast at four bytes each, and the tokenizer of
both, which knows two thousand, needs more of them. Memory is the process at its largest.\
"""
HEADINGS = [
    "training",
    "tokens, forecast : real",
    "seconds for 1,000 tokens",
    "forecast : real",
    "MiB",
    "forecast : real",
]
CATALOG = load_catalog(ROOT / "models.yaml")


@dataclass(frozen=True)
class Case:
    """`layers`, `hidden`: a model of random weights in this shape; the demo model without."""

    name: str
    batch_size: int
    sentences: int  # in an answer
    layers: int = 0
    hidden: int = 0
    gradient_checkpointing: bool = False


CASES = [
    Case("demo, 8 short rows", 8, 4),
    Case("demo, 8 long rows", 8, 30),
    Case("15 M, 2 short rows", 2, 4, layers=8, hidden=384),
    Case("15 M, 2 long rows", 2, 30, layers=8, hidden=384),
    Case("15 M, 2 long rows, checkpointing", 2, 30, layers=8, hidden=384, gradient_checkpointing=True),
]


def main() -> None:
    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder, telling(len(CASES)) as tell:
        lines = []
        for number, case in enumerate(CASES):
            tell(case.name)
            lines.append(measure(case, Path(folder) / str(number)))
    show(HEADINGS, lines, facts())
    write(RESULTS, HEAD.format(steps=N_STEPS), HEADINGS, lines, facts())


def measure(case: Case, folder: Path) -> list[str]:
    folder.mkdir()
    data, model, parameters = write_rows(case, folder), *make_model(case, folder)
    numbers: dict[str, Any] = {**NUMBERS, "max_seq_length": 4096, "max_steps": None, "packing": True}
    numbers |= {"batch_size": case.batch_size, "gradient_checkpointing": case.gradient_checkpointing}
    config = {
        "job_id": "bench",
        "model_path": str(model),
        "served_model": "bench",
        "training_file": str(data),
        "validation_file": None,
        "init_adapter": None,
        "device": "cpu",
        "seed": 1,
        "checkpoint_every_steps": 1000,
        "keep_checkpoints": 1,
        "hyperparameters": numbers,
    }
    trained = train(Side(case.name, case.batch_size, packing=True), folder / "run", config, cpu_threads())
    spec = CATALOG.models[0].model_copy(update={"parameters_billions": parameters / 1e9})
    lengths: RowLengths = check(data).lengths
    real_tokens = trained.losses[-1][0]
    tokens = estimate.trained_tokens(lengths, N_STEPS * case.batch_size, numbers)
    cpu = GpuChoice.parse("CPU")
    needed = estimate.memory_bytes(spec, numbers, max(lengths.rows_of), cpu)
    seconds = estimate.training_seconds(CATALOG, spec, cpu, numbers, 1000) or 0.0
    return [
        case.name,
        f"{tokens / real_tokens:.2f}",
        f"{1000 / trained.tokens_per_second:.2f}",
        f"{seconds * trained.tokens_per_second / 1000:.2f}",
        f"{trained.peak_bytes / (1 << 20):,.0f}",
        f"{needed / trained.peak_bytes:.2f}",
    ]


def write_rows(case: Case, folder: Path) -> Path:
    said = sentences_of((ROOT / "demo" / "train.jsonl").read_text("utf-8"))
    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(N_STEPS * case.batch_size):
            answer = " ".join(said[(row * 7 + at) % len(said)] for at in range(case.sentences))
            turns = [{"role": "user", "content": said[row % len(said)]}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def make_model(case: Case, folder: Path) -> tuple[Path, int]:
    """Where it lies, and how many parameters it has."""
    if not case.layers:
        return DEMO, round(CATALOG.models[0].parameters_billions * 1e9)
    shape = Qwen3Config(
        vocab_size=json.loads((DEMO / "config.json").read_bytes())["vocab_size"],
        hidden_size=case.hidden,
        intermediate_size=3 * case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 64,
        num_key_value_heads=case.hidden // 128,
        head_dim=64,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(shape)
    model.save_pretrained(folder / "model")
    for path in (*DEMO.glob("tokenizer*"), *DEMO.glob("chat_template*"), *DEMO.glob("generation_config*")):
        shutil.copy(path, folder / "model")
    return folder / "model", model.num_parameters()


if __name__ == "__main__":
    main()
