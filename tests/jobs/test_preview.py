"""Training rows are shown as tokens before there is a job, for nothing."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from httpx import AsyncClient
from starlette.requests import ClientDisconnect, Request

from app.jobs.preview import NoPreview, Previews
from app.jobs.preview_router import while_asked
from tests.asking import JOBS, MODEL, jsonl, ok, refused, upload
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

PREVIEW = "/v1/fine_tuning/preview"
ROW = {"messages": [{"role": "user", "content": "Say two words"}, {"role": "assistant", "content": "Two words"}]}


def order(training_file: Path) -> dict[str, Any]:
    numbers = {"n": 1, "max_seq_length": 64, "train_on_inputs": False, "simulate": True}
    return {"model_path": "none", "training_file": str(training_file), **numbers}


def children() -> list[int]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += [child.pid] if "workers.preview" in child.cmdline() else []
    return found


async def test_a_simulated_preview_takes_words_for_tokens_and_says_so(client: AsyncClient) -> None:
    file_id = (await upload(client, jsonl([ROW])))["id"]
    told = ok(await client.post(PREVIEW, json={"model": MODEL, "training_file": file_id}))
    assert (told["object"], told["model"], told["is_simulated"]) == ("fine_tuning.preview", MODEL, True)
    [row] = told["rows"]
    [example] = row["examples"]
    learned = [token["text"] for token in example["tokens"] if token["has_loss"]]
    assert learned == ["Two", "words", "<|end|>"]
    assert (row["line"], example["is_cut"], example["n_loss_tokens"]) == (1, False, 3)
    assert ok(await client.get(JOBS))["data"] == []


async def test_rows_are_cut_where_the_job_would_cut_them_and_warnings_are_told(client: AsyncClient) -> None:
    long = {"messages": [ROW["messages"][0], {"role": "assistant", "content": "word " * 100}]}
    file_id = (await upload(client, jsonl([long, long])))["id"]
    body = {"model": MODEL, "training_file": file_id, "hyperparameters": {"max_seq_length": 50}, "n": 1}
    told = ok(await client.post(PREVIEW, json=body))
    [row] = told["rows"]
    assert (row["examples"][0]["is_cut"], row["examples"][0]["n_tokens"]) == (True, 50)
    about_length, about_repeats = told["warnings"]
    assert about_length == "About 2 of 2 rows are longer than max_seq_length (50) and are cut."
    assert about_repeats == "Line 2: the same row as line 1"


@pytest.mark.parametrize("n", [0, 101])
async def test_how_many_rows_has_bounds(client: AsyncClient, n: int) -> None:
    file_id = (await upload(client))["id"]
    refused(await client.post(PREVIEW, json={"model": MODEL, "training_file": file_id, "n": n}), 400, param="n")


async def test_a_preview_refuses_what_a_job_would(client: AsyncClient) -> None:
    bad = (await upload(client, b"{}\n"))["id"]
    response = await client.post(PREVIEW, json={"model": MODEL, "training_file": bad})
    refused(response, 400, param="training_file", code="invalid_training_file")


async def test_who_leaves_takes_the_child_along(training_file: Path) -> None:
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    shown = asyncio.create_task(while_asked(Request({"type": "http"}, receive), Previews(60), order(training_file)))

    async def started() -> list[int]:
        return children()

    assert await eventually(started)
    left.set()
    with pytest.raises(ClientDisconnect):
        await shown
    assert children() == []


async def test_a_preview_that_takes_too_long_is_ended_and_the_next_one_has_its_turn(training_file: Path) -> None:
    previews = Previews(0.001)
    with pytest.raises(NoPreview, match="not ready within"):
        await previews.show(order(training_file))
    assert children() == []
    assert not previews._turn.locked()


async def test_previews_take_turns(training_file: Path) -> None:
    previews, most = Previews(60), 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(children()))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    told = await asyncio.gather(*(previews.show(order(training_file)) for _ in range(3)))
    counting.cancel()
    assert all(len(each["rows"]) == 1 for each in told)
    assert most == 1


async def test_a_file_that_is_gone_is_no_bug_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NoPreview, match="could not be read"):
        await Previews(60).show(order(tmp_path / "gone"))
