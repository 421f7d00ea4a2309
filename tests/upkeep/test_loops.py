"""What a gateway does on the side goes on, whatever fails on the way."""

import asyncio
import os
from pathlib import Path

import pytest

from app.files.storage import Storage
from app.ids import new_id
from app.store.session import Store
from app.upkeep.loops import repeat, sweep
from tests.rows import make_file, make_org

pytestmark = pytest.mark.anyio


async def test_a_step_that_fails_is_tried_again() -> None:
    n_calls, enough = 0, asyncio.Event()

    async def step() -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            enough.set()
        raise OSError("away")

    loop = asyncio.create_task(repeat("test", step, 0.0))
    await asyncio.wait_for(enough.wait(), 5)
    loop.cancel()
    await asyncio.wait([loop])
    assert loop.cancelled()


async def test_bytes_without_a_row_are_swept_once_they_are_old(tmp_path: Path, store: Store) -> None:
    storage, lost, fresh = Storage(tmp_path), new_id("file"), new_id("file")
    async with store.begin() as session:
        kept = (await make_file(session, await make_org(session))).id
    for file_id in (kept, lost, fresh):
        storage.file(file_id).touch()
    for file_id in (kept, lost):
        os.utime(storage.file(file_id), (1, 1))
    await sweep(store, storage)
    assert {file_id for file_id in (kept, lost, fresh) if storage.file(file_id).exists()} == {kept, fresh}
