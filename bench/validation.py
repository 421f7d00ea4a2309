"""`python -m bench.validation`: how fast a training file is checked on one core, and in how much memory."""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated

import orjson
import typer
from rich.console import Console

from app.files.training_file import MIB, check
from bench.machine import SCRATCH

WORDS = ("loam", "sand", "silt", "clay", "water", "root", "soil", "field", "grün", "土", "\n")
TURNS = 4


def main(mib: Annotated[int, typer.Option(help="size of the file")] = 256) -> None:
    """Chat rows of one to a few kilobytes, in several languages, with a tool call in each tenth."""
    with tempfile.NamedTemporaryFile(dir=SCRATCH, suffix=".jsonl") as file:
        path = Path(file.name)
        write(path, mib * MIB)
        before = _peak_mib()
        began = time.process_time()
        report = check(path)
        seconds = time.process_time() - began
        size_mb = path.stat().st_size / 1e6
    assert report.is_valid, report.summary()
    Console().print(f"{size_mb:,.0f} MB, {report.n_rows:,} rows: {size_mb / seconds:,.0f} MB/s of one core")
    Console().print(f"peak memory {_peak_mib():,.0f} MiB, {before:,.0f} MiB of it before")


def write(path: Path, size_bytes: int) -> None:
    written = 0
    with path.open("wb") as file:
        for line in _lines():
            written += file.write(line)
            if written >= size_bytes:
                return


def _lines() -> Iterator[bytes]:
    rng, number = Random(1), 0
    while True:
        number += 1
        said = [" ".join(rng.choices(WORDS, k=rng.randint(10, 120))) for _ in range(2 * TURNS)]
        roles = ("user", "assistant") * TURNS
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
        if number % 10 == 0:
            arguments = orjson.dumps({"at": said[0], "number": number}).decode()
            call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
            messages += [{"role": "assistant", "tool_calls": [call]}]  # type: ignore[dict-item]
        yield orjson.dumps({"messages": messages}) + b"\n"


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
