"""Bytes on the local disk: the only place that joins paths. Every name in it is an id of ours."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

OUR_NAME = re.compile(r"^[a-z]+[-_][0-9a-z]{26}$")
TEMPORARY = ".part"


class TooManyBytes(Exception):
    """More came than the cap allows; nothing was kept."""


@dataclass(frozen=True)
class Saved:
    size_bytes: int
    sha256: str


class Storage:
    """Files, and the run folders of jobs, under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        for folder in ("files", "runs", "engines"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def file(self, file_id: str) -> Path:
        return self.root / "files" / _ours(file_id)

    def run(self, job_id: str) -> Path:
        return self.root / "runs" / _ours(job_id)

    def adapter(self, job_id: str, folder: str) -> Path:
        """The PEFT folder `adapter` or `checkpoints/step-N` of a job's run."""
        if not re.fullmatch(r"adapter|checkpoints/step-[0-9]+", folder):
            raise ValueError(f"not an adapter folder: {folder!r}")
        return self.run(job_id) / folder

    @property
    def engines(self) -> Path:
        """Sockets, logs and process records of this host's engines."""
        return self.engines_of(self.root)

    @staticmethod
    def engines_of(root: Path) -> Path:
        return root / "engines"

    @property
    def start_times(self) -> Path:
        return self.root / "start_times.json"

    async def save(self, file_id: str, chunks: AsyncIterable[bytes], *, max_bytes: int) -> Saved:
        """Write, fsync, rename, fsync the folder: when this returns, the bytes survive a power cut.

        Raises TooManyBytes as soon as the cap is passed; whatever fails, no part of the file is left.
        """
        final = self.file(file_id)
        part = final.with_suffix(TEMPORARY)
        try:
            saved = await _write(part, chunks, max_bytes)
            await anyio.to_thread.run_sync(_make_final, part, final)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return saved

    def delete_file(self, file_id: str) -> None:
        self.file(file_id).unlink(missing_ok=True)

    def delete_run(self, job_id: str) -> None:
        shutil.rmtree(self.run(job_id), ignore_errors=True)

    def remove(self, path: Path) -> None:
        """Something of ours and all that is in it; harmless where it has gone."""
        if not path.is_relative_to(self.root):
            raise ValueError(f"not in the data dir: {path}")
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _ours(name: str) -> str:
    if not OUR_NAME.fullmatch(name):
        raise ValueError(f"not an id of ours: {name[:80]!r}")
    return name


async def _write(path: Path, chunks: AsyncIterable[bytes], max_bytes: int) -> Saved:
    digest, size = hashlib.sha256(), 0
    async with await anyio.open_file(path, "wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise TooManyBytes
            digest.update(chunk)
            await file.write(chunk)
        await file.flush()
        await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
    return Saved(size, digest.hexdigest())


def _make_final(part: Path, final: Path) -> None:
    part.rename(final)
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; file systems that cannot are left alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
