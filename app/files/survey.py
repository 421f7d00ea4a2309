"""What lies in the data dir, thing by thing: whose it is and when it was last changed. Nothing is changed here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.files.storage import OUR_NAME, TEMPORARY, Storage

STEP = re.compile(r"step-([0-9]+)")
LOG = re.compile(r".+\.log(\.[0-9]+)?")


class Kind(StrEnum):
    FILE = "file"
    UPLOAD = "upload"
    RUN = "run"
    ADAPTER = "adapter"
    CHECKPOINT = "checkpoint"
    UNFINISHED = "unfinished"
    LOG = "log"


@dataclass(frozen=True)
class Thing:
    """`owner` is the id of the file or the job that it belongs to, and nothing for an engine's log."""

    path: Path
    kind: Kind
    changed_at: float
    owner: str = ""
    step: int = 0


def survey(storage: Storage) -> Iterator[Thing]:
    for path in (storage.root / "files").iterdir():
        if OUR_NAME.fullmatch(path.stem):
            yield from _thing(path, Kind.UPLOAD if path.suffix == TEMPORARY else Kind.FILE, path.stem)
    for path in (storage.root / "runs").iterdir():
        if OUR_NAME.fullmatch(path.name) and path.is_dir():
            yield from _run(path)
    yield from _logs(storage.engines)


def size_bytes(path: Path) -> int:
    """Of a file, or of all that is in a folder."""
    files = (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else (path,)
    try:
        return sum(each.stat().st_size for each in files)
    except FileNotFoundError:  # another gateway is removing it
        return 0


def _run(run: Path) -> Iterator[Thing]:
    yield from _thing(run, Kind.RUN, run.name, *_entries(run))
    for path in (*_entries(run), *_entries(run / "checkpoints")):
        step = STEP.fullmatch(path.name)
        if path.suffix in (".tmp", TEMPORARY):
            yield from _thing(path, Kind.UNFINISHED, run.name)
        elif path == run / "adapter":
            yield from _thing(path, Kind.ADAPTER, run.name)
        elif step and path.parent != run:
            yield from (
                Thing(t.path, t.kind, t.changed_at, run.name, int(step[1])) for t in _thing(path, Kind.CHECKPOINT)
            )


def _logs(folder: Path) -> Iterator[Thing]:
    """An engine's newest log is its own for as long as there are processes here that may write to it."""
    has_engines = any(folder.glob("*.json"))
    for path in folder.iterdir():
        if LOG.fullmatch(path.name) and not (has_engines and path.suffix == ".log"):
            yield from _thing(path, Kind.LOG)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _thing(path: Path, kind: Kind, owner: str = "", *others: Path) -> Iterator[Thing]:
    """As old as the youngest of it and `others`; nothing where it has just gone."""
    try:
        yield Thing(path, kind, max(each.stat().st_mtime for each in (path, *others)), owner)
    except FileNotFoundError:
        return
