"""Storage keeps whole files or none, and joins no name that is not ours."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.files.storage import Storage, TooManyBytes
from app.ids import new_id

pytestmark = pytest.mark.anyio


async def chunks(*parts: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error:
        raise error


def names(storage: Storage) -> list[str]:
    return [path.name for path in (storage.root / "files").iterdir()]


async def test_what_is_saved_is_measured_and_whole(tmp_path: Path) -> None:
    storage, file_id = Storage(tmp_path), new_id("file")
    saved = await storage.save(file_id, chunks(b"ab", b"", b"c"), max_bytes=3)
    assert (saved.size_bytes, saved.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert storage.file(file_id).read_bytes() == b"abc"
    assert names(storage) == [file_id]


@pytest.mark.parametrize("error", [TooManyBytes(), OSError("disk full"), KeyboardInterrupt()])
async def test_whatever_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    storage = Storage(tmp_path)
    too_many = b"cd" if isinstance(error, TooManyBytes) else b""
    with pytest.raises(type(error)):
        await storage.save(new_id("file"), chunks(b"ab", too_many, error=error), max_bytes=3)
    assert names(storage) == []


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc/passwd", "file-", "file-" + "A" * 26, "file-" + "a" * 26 + "\n", "file-" + "a" * 27]
)
def test_a_name_that_is_not_ours_is_no_path(tmp_path: Path, name: str) -> None:
    storage = Storage(tmp_path)
    for path in (storage.file, storage.run):
        with pytest.raises(ValueError, match="not an id of ours"):
            path(name)


@pytest.mark.parametrize(
    "folder", ["", "..", "checkpoints", "checkpoints/step-x", "checkpoints/step-1/..", "adapter\n"]
)
def test_a_folder_that_is_no_adapter_is_no_path(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="not an adapter folder"):
        Storage(tmp_path).adapter(new_id("ftjob"), folder)


def test_what_is_not_in_the_data_dir_is_not_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    with pytest.raises(ValueError, match="not in the data dir"):
        Storage(tmp_path / "data").remove(outside)
    assert outside.exists()


def test_deleting_twice_is_harmless(tmp_path: Path) -> None:
    storage, file_id = Storage(tmp_path), new_id("file")
    storage.file(file_id).touch()
    for _ in range(2):
        storage.delete_file(file_id)
        storage.delete_run(new_id("ftjob"))
    assert names(storage) == []
