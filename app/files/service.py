"""Files of an organisation: create, find, list, delete."""

import re
import time
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import APIError, BadRequest, NotFound, TooLarge
from app.files.storage import Saved, Storage, TooManyBytes
from app.files.training_file import Listed, TrainingFileReport, check
from app.ids import new_id
from app.orgs.quotas import Quotas, lock_org
from app.store.idempotency import claim_key
from app.store.paging import Page, PageQuery, paginate
from app.store.session import Store
from app.store.tables import File, Job

TRAINING_PURPOSES = frozenset({"fine-tune", "sft_training", "validation"})
PURPOSES = TRAINING_PURPOSES | {"fine-tune-results"}


class InvalidTrainingFile(BadRequest):
    code = "invalid_training_file"


class UnknownFile(NotFound):
    code = "file_not_found"

    def __init__(self, file_id: str, *, param: str = "file_id") -> None:
        super().__init__(f"No such file: '{file_id[:100]}'.", param=param)


class FileTooLarge(TooLarge):
    """The client is still sending, so the connection ends with this answer."""

    headers = {"Connection": "close"}

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The file is larger than the {max_bytes} bytes this server takes.",
            param="file",
            troubleshooting={"max_bytes": max_bytes},
        )


@dataclass(frozen=True)
class Room:
    """What an organisation may keep, and the files that it keeps."""

    quotas: Quotas
    n_files: int
    n_bytes: int

    @property
    def left_bytes(self) -> int:
        return self.quotas.max_stored_bytes - self.n_bytes

    def require(self, size_bytes: int) -> None:
        """For one more file. Raises NoRoom."""
        if self.n_files >= self.quotas.max_stored_files or size_bytes > self.left_bytes:
            raise NoRoom(self)


class NoRoom(TooLarge):
    """Mostly the client is still sending, as with FileTooLarge."""

    code = "storage_limit_reached"
    headers = {"Connection": "close"}

    def __init__(self, room: Room) -> None:
        max_files, max_bytes = room.quotas.max_stored_files, room.quotas.max_stored_bytes
        super().__init__(
            f"An organisation may keep {max_files} files of {max_bytes} bytes together; yours has {room.n_files} of "
            f"{room.n_bytes} bytes, and no room for this one. Delete some first.",
            param="file",
            troubleshooting={
                "max_files": max_files,
                "max_bytes": max_bytes,
                "files": room.n_files,
                "bytes": room.n_bytes,
            },
        )


async def find_room(session: AsyncSession, org_id: str, quotas: Quotas) -> Room:
    rows = select(func.count(), func.coalesce(func.sum(File.size_bytes), 0))
    n_files, n_bytes = (await session.execute(rows.where(File.org_id == org_id, File.deleted_at.is_(None)))).one()
    return Room(quotas, n_files, int(n_bytes))


async def save_bytes(
    storage: Storage, chunks: AsyncIterable[bytes], *, max_bytes: int, room: Room | None = None
) -> tuple[str, Saved]:
    """The new file's id, and what was saved under it; no row yet. Raises FileTooLarge, NoRoom: no more is read then."""
    file_id = new_id("file")
    left_bytes = room.left_bytes if room else max_bytes
    try:
        return file_id, await storage.save(file_id, chunks, max_bytes=min(max_bytes, left_bytes))
    except TooManyBytes as error:
        raise (NoRoom(room) if room and left_bytes < max_bytes else FileTooLarge(max_bytes)) from error


async def describe(storage: Storage, org_id: str, file_id: str, saved: Saved, *, filename: str, purpose: str) -> File:
    """The row for saved bytes; a training file is checked, and says what is wrong with it."""
    file = File(
        id=file_id,
        org_id=org_id,
        filename=clean_filename(filename),
        purpose=purpose,
        size_bytes=saved.size_bytes,
        sha256=saved.sha256,
        status="processed",
        created_at=time.time(),
    )
    if purpose in TRAINING_PURPOSES:
        _record(file, await anyio.to_thread.run_sync(check, storage.file(file_id)))
    return file


def _record(file: File, report: TrainingFileReport) -> None:
    file.n_rows, file.status_details = report.n_rows, report.summary()
    file.status = "processed" if report.is_valid else "error"
    file.problems = _told(report.problems) if report.problems.count else None
    file.n_problems = report.problems.count
    file.warnings = _told(report.warnings) if report.warnings.count else None
    file.row_lengths = report.lengths.stored()


def _told(listed: Listed) -> list[dict[str, Any]]:
    return [{"line": found.line, "message": found.message} for found in listed.first]


async def add(store: Store, storage: Storage, file: File, idempotency_key: str | None, quotas: Quotas) -> File:
    """Commit the row, or find the one that the same request made before. Raises Conflict, NoRoom.

    When it is not known whether the commit came through, the bytes stay: without a row they are swept one day.
    """
    request = [file.sha256, file.filename, file.purpose]
    try:
        async with store.begin() as session:
            file_id = await claim_key(session, file.org_id, idempotency_key, request, file.id)
            if file_id == file.id:
                await lock_org(session, file.org_id)
                (await find_room(session, file.org_id, quotas)).require(file.size_bytes)
                session.add(file)
                return file
            earlier = await get_file(session, file.org_id, file_id)
    except APIError:
        storage.delete_file(file.id)
        raise
    storage.delete_file(file.id)
    return earlier


async def get_file(session: AsyncSession, org_id: str, file_id: str, *, param: str = "file_id") -> File:
    """Raises UnknownFile."""
    return await _find(session, select(File), org_id, file_id, param)


async def lock_file(session: AsyncSession, org_id: str, file_id: str, *, param: str = "file_id") -> File:
    """The file, which nobody else can delete or begin to use until this transaction ends."""
    return await _find(session, select(File).with_for_update(), org_id, file_id, param)


async def _find(session: AsyncSession, rows: Select[File], org_id: str, file_id: str, param: str) -> File:
    file = await session.scalar(rows.where(File.id == file_id, File.org_id == org_id, File.deleted_at.is_(None)))
    if file is None:
        raise UnknownFile(file_id, param=param)
    return file


async def get_training_file(session: AsyncSession, org_id: str, file_id: str, *, param: str) -> File:
    """Raises UnknownFile, and InvalidTrainingFile for one that cannot be trained on."""
    file = await lock_file(session, org_id, file_id, param=param)
    if file.n_rows is None:
        raise InvalidTrainingFile(f"File {file_id} has the purpose {file.purpose}; it must be fine-tune.", param=param)
    if file.status == "error":
        found = {"problems": file.problems, "n_problems": file.n_problems}
        raise InvalidTrainingFile(file.status_details or "", param=param, troubleshooting=found)
    return file


async def list_files(session: AsyncSession, org_id: str, query: PageQuery, purpose: str | None) -> Page[File]:
    rows = select(File).where(File.org_id == org_id)
    if purpose is not None:
        rows = rows.where(File.purpose == purpose)
    return await paginate(session, rows, File.id, query, visible=File.deleted_at.is_(None))


def clean_filename(name: str) -> str:
    """The last part of a client's path, without what could break a header or a terminal."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable() and c not in '"<>|:*?')
    return kept.strip(". ")[:255] or "file"


async def mark_deleted(session: AsyncSession, org_id: str, file_id: str) -> bool:
    """False when an unfinished job needs the file; raises UnknownFile."""
    file = await lock_file(session, org_id, file_id)
    needs_it = (Job.training_file == file_id) | (Job.validation_file == file_id)
    unfinished = Job.status.in_(("validating_files", "queued", "running", "paused"))
    if await session.scalar(select(Job.id).where(Job.org_id == org_id, needs_it, unfinished).limit(1)):
        return False
    file.deleted_at = time.time()
    return True
