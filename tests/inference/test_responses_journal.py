"""Events are written in batches, in order and all of them, whatever the database does for a while."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.inference.responses_journal import Journal

pytestmark = pytest.mark.anyio


def event(number: int) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "sequence_number": number}


class Written:
    """A database that is away for the first `n_failures` times."""

    def __init__(self, n_failures: int = 0) -> None:
        self.n_failures = n_failures
        self.batches: list[list[int]] = []
        self.first = asyncio.Event()

    async def write(self, events: list[dict[str, Any]]) -> None:
        if self.n_failures:
            self.n_failures -= 1
            raise OperationalError("", None, Exception("away"))
        self.batches.append([each["sequence_number"] for each in events])
        self.first.set()


async def test_the_first_events_are_written_at_once_and_the_others_gather() -> None:
    written = Written()
    journal = Journal(written.write)
    writing = asyncio.create_task(journal.write())
    journal.add([event(0)])
    await written.first.wait()
    for number in range(1, 100):
        journal.add([event(number)])
        await asyncio.sleep(0)
    journal.close()
    await writing
    assert written.batches == [[0], list(range(1, 100))]


async def test_all_is_written_before_it_is_over() -> None:
    written = Written()
    journal = Journal(written.write)
    journal.add([event(0)])
    journal.add([])
    journal.close()
    await journal.write()
    assert written.batches == [[0]]


async def test_a_database_that_is_away_is_waited_for() -> None:
    written = Written(n_failures=1)
    journal = Journal(written.write)
    journal.add([event(0)])
    journal.close()
    await journal.write()
    assert written.batches == [[0]]


async def test_what_cannot_be_written_is_told() -> None:
    async def refuse(events: list[dict[str, Any]]) -> None:
        raise ValueError("never")

    journal = Journal(refuse)
    journal.add([event(0)])
    with pytest.raises(ValueError, match="never"):
        await journal.write()
