"""A background response in the store: one end, and after it nothing."""

from typing import Any

import pytest

from app.errors import BadRequest
from app.ids import new_id
from app.inference import responses_running as running
from app.inference import responses_store as stored
from app.inference.responses_background import Backgrounds
from app.inference.responses_follow import follow
from app.inference.responses_object import new_response
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import ResponseEvents
from app.settings import Settings
from app.store.session import Store
from tests.conformance.shapes import OPENAI
from tests.inference.vllm_chunks import TEXT
from tests.rows import make_org

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
LONG, GONE = 60.0, -1.0


class Worker:
    """A gateway's work on one background response, step by step."""

    def __init__(self, store: Store, org_id: str, *, background: bool = True) -> None:
        asked = ResponseCreate.model_validate({"model": "m", "input": "a", "background": background})
        self.store = store
        self.org_id = org_id
        self.id = new_id("resp")
        self.events = ResponseEvents(new_response(asked, response_id=self.id, created_at=1, status="queued"))

    @classmethod
    async def begun(cls, store: Store, *, lease_seconds: float = LONG) -> "Worker":
        async with store.begin() as session:
            worker = cls(store, (await make_org(session)).id)
            stored.add(session, worker.org_id, worker.events.response, [])
            await session.flush()
            await running.begin(session, worker.id, worker.events.queue(), lease_seconds=lease_seconds)
        return worker

    async def tell(self, events: list[Json], *, lease_seconds: float = LONG) -> None:
        async with self.store.begin() as session:
            await running.tell(session, self.id, events, lease_seconds=lease_seconds)

    async def write(self, n_chunks: int, *, lease_seconds: float = LONG) -> None:
        events = self.events.start()
        events += [event for chunk in TEXT[:n_chunks] for event in self.events.feed(chunk)]
        await self.tell(events, lease_seconds=lease_seconds)

    async def finish(self) -> None:
        await self.tell(self.events.finish())

    async def cancel(self) -> Json:
        async with self.store.begin() as session:
            return await running.cancel(session, self.org_id, self.id)

    async def kept(self) -> Json:
        async with self.store.read() as session:
            return (await stored.get(session, self.org_id, self.id)).body

    async def told(self, after: int = -1) -> list[Json]:
        """As long as it runs this waits for ever."""
        gateway = Backgrounds(Settings(), self.store)
        batches = follow(self.store, gateway, self.id, after=after, poll_seconds=0.01)
        return [event async for events in batches for event in events]


def numbers(events: list[Json]) -> list[int]:
    return [event["sequence_number"] for event in events]


async def test_the_response_is_what_its_events_last_showed(store: Store) -> None:
    worker = await Worker.begun(store)
    assert (await worker.kept())["status"] == "queued"
    await worker.write(3)
    assert (await worker.kept())["status"] == "in_progress"
    for chunk in TEXT[3:]:
        await worker.tell(worker.events.feed(chunk) or worker.events.finish())
    assert await worker.kept() == worker.events.response
    assert (await worker.kept())["status"] == "completed"


async def test_events_are_told_again_from_any_number_on(store: Store) -> None:
    worker = await Worker.begun(store)
    await worker.write(len(TEXT))
    await worker.finish()
    told = await worker.told()
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    for number in numbers(told):
        assert await worker.told(number) == told[number + 1 :]


async def test_writing_the_same_events_again_changes_nothing(store: Store) -> None:
    worker = await Worker.begun(store)
    events = worker.events.start()
    await worker.tell(events)
    await worker.tell(events)
    await worker.cancel()
    assert numbers(await worker.told()) == [0, 1, 2]


async def test_a_cancelled_response_never_ends_otherwise(store: Store) -> None:
    worker = await Worker.begun(store)
    await worker.write(3)
    cancelled = await worker.cancel()
    OPENAI.check("Response", cancelled)
    assert (cancelled["status"], cancelled["output_text"]) == ("cancelled", "Loam is soil.")
    for chunk in TEXT[3:]:
        with pytest.raises(running.Ended):
            await worker.tell(worker.events.feed(chunk) or worker.events.finish())
    assert await worker.kept() == cancelled == await worker.cancel()
    told = await worker.told()
    assert told[-1]["type"] == "response.output_text.delta"


async def test_a_finished_response_cannot_be_cancelled(store: Store) -> None:
    worker = await Worker.begun(store)
    await worker.write(len(TEXT))
    await worker.finish()
    with pytest.raises(BadRequest, match="Cannot cancel a completed response"):
        await worker.cancel()
    assert (await worker.kept())["status"] == "completed"


async def test_a_response_whose_gateway_went_silent_has_failed(store: Store) -> None:
    worker = await Worker.begun(store)
    await worker.write(3, lease_seconds=GONE)
    other = Backgrounds(Settings(), store)
    await other.look_after()
    await other.look_after()
    told = await worker.told()
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.failed"
    OPENAI.check_event(told[-1])
    kept = await worker.kept()
    assert kept == told[-1]["response"]
    assert (kept["error"]["code"], kept["output_text"]) == ("server_error", "Loam is soil.")
    with pytest.raises(running.Ended):  # it was only paused, and wakes up
        await worker.finish()


async def test_others_do_not_fail_what_has_lapsed_while_they_were_cut_off_themselves(store: Store) -> None:
    worker = await Worker.begun(store, lease_seconds=GONE)
    await Backgrounds(Settings(), store).look_after()
    assert (await worker.kept())["status"] == "queued"


async def test_a_response_that_is_worked_on_is_left_alone(store: Store) -> None:
    worker = await Worker.begun(store, lease_seconds=GONE)
    await worker.write(1)
    other = Backgrounds(Settings(), store)
    await other.look_after()
    await other.look_after()
    assert (await worker.kept())["status"] == "in_progress"


async def test_a_response_that_is_deleted_is_not_written_any_more(store: Store) -> None:
    worker = await Worker.begun(store)
    await worker.write(3)
    async with store.begin() as session:
        await stored.remove(session, worker.org_id, worker.id)
    with pytest.raises(running.Ended):
        await worker.finish()
    assert await worker.told() == []
