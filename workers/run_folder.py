"""What a recipe leaves in its run folder, so that whoever reads it never meets half of a thing."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Metrics:
    """metrics.jsonl: append-only, one write per line. Of several processes the first tells; all do of their errors."""

    def __init__(self, path: Path, *, is_first: bool = True) -> None:
        self.path = path
        self.is_first = is_first
        self.also: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _fields: None  # is told what is written
        if is_first and path.exists() and not path.read_bytes().endswith(b"\n"):
            self._append(b"\n")  # a line torn by a crash must not swallow ours

    def write(self, kind: str, **fields: Any) -> None:
        if self.is_first or kind == "error":
            self._append(json.dumps({"kind": kind, "at": time.time(), **fields}).encode() + b"\n")
            self.also(kind, fields)

    def finish(self) -> None:
        """Says it once, also when a run is started again behind its end."""
        lines = list(self._lines()) if self.is_first else []
        if lines and lines[-1]["kind"] == "finished":
            return
        last: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "step"), {})
        self.write("finished", step=last.get("step", 0), trained_tokens=last.get("trained_tokens", 0))

    def _append(self, line: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(line)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for raw in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            try:
                yield json.loads(raw)
            except ValueError:  # blank, or torn
                continue


@contextmanager
def appears_whole(folder: Path) -> Iterator[Path]:
    """Fill the folder that is given; it gets its name once all of it is on the disk."""
    unfinished = folder.with_name(f"{folder.name}.tmp")
    for leftover in (unfinished, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for path in (*unfinished.iterdir(), unfinished):
            _fsync(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # a full disk is not helped by half a checkpoint
        raise
    unfinished.rename(folder)
    _fsync(folder.parent)


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """Newest first; unfinished ones are none."""
    named = [p for p in checkpoints.glob("step-*") if p.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)


def _fsync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
