"""The recipe in processes of its own, forked from one that has imported torch: else that takes most of their time."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.workers.preloaded"])


def start(run: Path, rank: int = 0, size: int = 1) -> BaseProcess:
    """As `python -m workers.sft` with a run folder or, for one of several ranks, as `python -m workers.ranks` does."""
    process = FORKS.Process(target=recipe, args=(run, rank, size), daemon=True)
    process.start()
    return process


def recipe(run: Path, rank: int, size: int) -> None:
    from workers.sft import main

    with (run / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(number) for name, number in numbers.items()}, GLOO_SOCKET_IFNAME="lo")
    sys.exit(main(run, (run / "meeting").resolve() if size > 1 else None))


def status(process: BaseProcess, within_seconds: float = 120) -> int | None:
    """How it has ended, negative for a signal."""
    process.join(within_seconds)
    return process.exitcode


def finish(run: Path) -> int | None:
    return status(start(run))


@contextmanager
def two_ranks(run: Path) -> Iterator[list[BaseProcess]]:
    """Neither outlives it."""
    ranks = [start(run, rank, 2) for rank in range(2)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
