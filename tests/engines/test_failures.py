"""What is told of an engine that failed, and when it may be tried again."""

import signal
import time
from pathlib import Path

import pytest

from app.engines.engine_log import EngineLog
from app.engines.failures import STEADY_SECONDS, Crashed, Failures, StartFailed, how_it_ended


def failures_in(folder: Path, said: str = "") -> Failures:
    (folder / "x.log").write_text(said)
    return Failures("test/a", EngineLog(folder / "x.log"))


def back_off(failures: Failures) -> float:
    return round(failures.retry_at - time.monotonic())


def test_each_start_that_fails_costs_twice_as_long_up_to_a_minute(tmp_path: Path) -> None:
    failures, waits = failures_in(tmp_path), []
    for _ in range(8):
        failures.start_failed(RuntimeError("no"))
        waits.append(back_off(failures))
        with pytest.raises(StartFailed):
            failures.check()
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_the_first_crash_costs_no_wait_and_crashes_in_a_row_more_and_more(tmp_path: Path) -> None:
    failures, waits = failures_in(tmp_path), []
    for ran_seconds in (1, 1, 1, STEADY_SECONDS + 1, 1):
        failures.crashed("ended with status 1", after_seconds=ran_seconds)
        waits.append(max(0, back_off(failures)))
        assert isinstance(failures.last, Crashed)
    assert waits == [0, 4, 8, 0, 4]


def test_a_failure_whose_back_off_is_over_is_forgotten(tmp_path: Path) -> None:
    failures = failures_in(tmp_path)
    failures.start_failed(RuntimeError("no"))
    failures.retry_at = 0.0
    failures.check()
    assert failures.last is None


def test_what_the_engine_said_is_told_and_first_of_all_why(tmp_path: Path) -> None:
    said = [
        "Starting",
        "(Worker pid=9) ERROR [x.py:1] torch.OutOfMemoryError: CUDA out of memory.",
        "RuntimeError: later",
    ]
    failures = failures_in(tmp_path, "\n".join(said))
    failures.start_failed(RuntimeError("its process ended with status 1"))
    assert failures.last
    assert failures.last.message == (
        "The engine of test/a could not start: its process ended with status 1 "
        "(torch.OutOfMemoryError: CUDA out of memory.)."
    )
    assert failures.last.troubleshooting == {"log": said}


def test_of_a_crash_nothing_is_told_that_may_be_of_others_requests(tmp_path: Path) -> None:
    failures = failures_in(tmp_path, "ERROR] ValueError: stop string 'our secret' of adapter_1")
    failures.crashed("was ended by SIGSEGV", after_seconds=5.0)
    assert failures.last
    assert failures.last.message == "The engine of test/a was ended by SIGSEGV; the server's log has its last words."
    assert failures.last.troubleshooting is None


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (1, "ended with status 1"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-signal.SIGKILL, "was ended by SIGKILL, perhaps for want of memory"),
    ],
)
def test_an_end_is_told_by_its_status(status: int, told: str) -> None:
    assert how_it_ended(status) == told
