"""What the load client is told, and what is read of what it tells."""

from pathlib import Path

import pytest

from bench.load import Asking, LoadFailed, Target, parse
from tests.bench.runs import NO_ERRORS, line


def test_a_measurement_is_read_as_it_was_told() -> None:
    load = parse(line(requests=42))
    assert (load.requests, load.seconds, load.first_chunk_us) == (42, 2.0, None)
    assert load.latency_us
    assert load.latency_us.p99 == 2000.0


def test_every_kind_of_error_counts() -> None:
    errors = parse(line(errors={**NO_ERRORS, "status": 1, "incomplete": 2, "wrong": 3, "connection": 4})).errors
    assert errors.count == 10


@pytest.mark.parametrize("said", ["", "sseload: connect: Connection refused", '{"seconds": 1.0}'])
def test_anything_else_is_a_failure_that_quotes_it(said: str) -> None:
    with pytest.raises(LoadFailed, match="the load client said"):
        parse(said)


def test_a_socket_is_asked_instead_of_a_port() -> None:
    assert Target("m", 80).flags == ["--model", "m", "--port", "80"]
    assert Target("m", 80, uds=Path("/e.sock")).flags == ["--model", "m", "--uds", "/e.sock"]


def test_each_header_is_given() -> None:
    assert Target("m", 80, headers=("a: 1", "b: 2")).flags[4:] == ["--header", "a: 1", "--header", "b: 2"]


def test_only_streams_are_stamped_and_paced() -> None:
    whole = Asking(connections=1, tokens=2, stamped=True).flags
    stream = Asking(connections=1, tokens=2, stamped=True, stream=True, pace_us=0).flags
    assert not {"--stamped", "--stream", "--pace-us"} & set(whole)
    assert {"--stamped", "--stream", "--pace-us"} <= set(stream)


def test_a_number_of_answers_is_asked_for_only_where_there_is_one() -> None:
    assert "--answers" not in Asking(connections=1, tokens=2).flags
    assert Asking(connections=1, tokens=2, answers=3).flags[-2:] == ["--answers", "3"]
