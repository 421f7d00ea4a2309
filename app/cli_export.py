"""`loam export`: a fine-tune as a folder that others load, its adapter alone or merged into its base."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.resolve import CHECKPOINT_NAME, AdapterRef, UnknownModel, resolve
from app.catalog.spec import Catalog, ModelSpec
from app.errors import Foreseen
from app.files.new_folder import new_folder
from app.files.storage import Storage
from app.files.zipped import Member
from app.jobs.adapter_folder import adapter_members
from app.store.tables import Job

NEEDED = ("torch", "transformers", "peft")


class CannotExport(Foreseen):
    """The message says why."""


@dataclass(frozen=True)
class Found:
    base: ModelSpec
    adapter: AdapterRef


async def find(session: AsyncSession, catalog: Catalog, name: str) -> Found:
    """Of any organisation: whoever has this command has the disk. Raises UnknownModel."""
    match = CHECKPOINT_NAME.match(name)
    job = await session.get(Job, (match["adapter"] if match else name).rpartition(":")[2].lower())
    if job is None:
        raise UnknownModel(name)
    base, adapter = await resolve(session, catalog, job.org_id, name)
    if adapter is None:
        raise UnknownModel(name)
    return Found(base, adapter)


def export(storage: Storage, catalog: Catalog, found: Found, folder: Path, *, merged: bool) -> None:
    """Raises CannotExport, AlreadyThere, NoAdapter, OSError; then nothing of the folder is left."""
    members = adapter_members(storage, catalog, found.base.id, found.adapter)
    merged = merged and found.adapter.own_name is None  # whole weights need no merging
    if merged:
        _require_torch()
    with new_folder(folder) as unfinished:
        if merged:
            _merge(found.base.weights, storage.adapter(found.adapter.job_id, found.adapter.folder), unfinished)
        else:
            _copy(members, unfinished)


def _copy(members: Sequence[Member], folder: Path) -> None:
    for member in members:
        with member.open() as source, (folder / member.name).open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _require_torch() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotExport(f"Merging needs {', '.join(missing)}, which is not installed here: make install.")


def _merge(base: str, adapter: Path, folder: Path) -> None:
    """In a process of its own: the command has no torch in it, and what a model's size takes is given back."""
    argv = [sys.executable, "-m", "workers.merge", base, str(adapter), str(folder)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode < 0:
        raise CannotExport(f"Merging was killed by signal {-done.returncode}; was there memory for the whole model?")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"Merging ended with exit code {done.returncode}."]
        raise CannotExport(said[-1])
