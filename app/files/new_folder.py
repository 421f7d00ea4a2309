"""A folder outside of our storage that appears whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import Foreseen
from app.files.storage import sync_folder


class AlreadyThere(Foreseen):
    """The message names it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} exists already; name a folder that does not.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill the folder that is given; it gets its name once all of it is on the disk. Raises AlreadyThere."""
    folder = folder.absolute()
    _require_absent(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        _make_durable(unfinished)
        _require_absent(folder)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _require_absent(folder: Path) -> None:
    if os.path.lexists(folder):
        raise AlreadyThere(folder)


def _make_durable(folder: Path) -> None:
    folder.chmod(0o755)  # mkdtemp's own are for their maker alone
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
