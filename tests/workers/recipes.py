"""The recipe in processes of its own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.workers.forks import fork, status


def start(run: Path, rank: int = 0, size: int = 1) -> BaseProcess:
    """As `python -m workers.sft` with a run folder or, for one of several ranks, as `python -m workers.ranks` does."""
    return fork(recipe, run, rank, size, log=run / "log.txt")


def recipe(run: Path, rank: int, size: int) -> None:
    from workers.sft import main

    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(number) for name, number in numbers.items()}, GLOO_SOCKET_IFNAME="lo")
    sys.exit(main(run, (run / "meeting").resolve() if size > 1 else None))


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
