"""The process that those of the tests are forked from."""

import os
import sys
from pathlib import Path

import pytest

from tests.workers.forks import fork, status


@pytest.mark.training
def test_a_forked_process_has_lost_no_thread_that_it_may_wait_for(tmp_path: Path) -> None:
    assert status(fork(count_threads_of_parent, log=tmp_path / "log")) == 1, (tmp_path / "log").read_text()


def count_threads_of_parent() -> None:
    sys.exit(len(list(Path(f"/proc/{os.getppid()}/task").iterdir())))
