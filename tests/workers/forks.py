"""Processes forked from one that has imported what they need: else that takes most of their time."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.workers.preloaded"])


def fork(act: Callable[..., None], *args: Any, log: Path) -> BaseProcess:
    """One that acts, and whose output goes to the end of `log`."""
    process = FORKS.Process(target=_logged, args=(act, args, log), daemon=True)
    process.start()
    return process


def _logged(act: Callable[..., None], args: tuple[Any, ...], log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    act(*args)


def status(process: BaseProcess, within_seconds: float = 120) -> int | None:
    """How it has ended, negative for a signal."""
    process.join(within_seconds)
    return process.exitcode
