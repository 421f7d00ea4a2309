"""What events have told of the output is what the machine that wrote them would have said."""

from typing import Any

import pytest

from app.inference.responses_told import output_told
from tests.inference.vllm_chunks import STREAMS, all_events, machine


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_the_output_that_was_told_is_the_output(chunks: list[dict[str, Any]]) -> None:
    events = list(all_events(chunks))
    assert output_told(events) == events[-1]["response"]["output"]


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_what_was_being_written_is_there_as_incomplete(chunks: list[dict[str, Any]]) -> None:
    for length in range(1, len(chunks)):
        events = machine()
        told = [*events.start(), *(event for part in chunks[:length] for event in events.feed(part))]
        events.fail("The engine went away.")
        assert output_told(told) == events.response["output"]


def test_nothing_was_told_before_the_start() -> None:
    assert output_told([]) == output_told(machine().queue()) == []
