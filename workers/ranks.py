"""The recipe as several processes, one for each GPU of a job: python -m workers.ranks N RUN_DIR.

They end together: when one fails the others are killed, and when this process dies, however it dies, so do they.
Its exit status is theirs, or that of the first that failed.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from app import tied

ORDERLY = (0, 75)  # done, or stopped with a checkpoint: the first rank may still be writing when others are through
# They talk on this host alone.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def start(rank: int, size: int, run_dir: str, meeting: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "workers.sft", run_dir, str(meeting)]
    tie = [sys.executable, "-SEP", tied.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    env = {**os.environ, **LOOPBACK, **{name: str(number) for name, number in numbers.items()}}
    # Whatever was handed to us, as the run folder's lock, is held until the last of them is gone.
    return subprocess.Popen([*tie, *argv], env=env, close_fds=False)


def wait_for(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended in order, or the first has not: its exit status then, negative for a signal."""
    status = 0
    for _ in ranks:
        _, ended = os.wait()
        status = os.waitstatus_to_exitcode(ended)
        if status not in ORDERLY:
            return status
    return status


def pass_on(number: int, ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        rank.send_signal(number)


def end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.wait()


def exit_as(status: int) -> NoReturn:
    if status == -signal.SIGKILL:  # most likely memory ran out, and the worker shall see it
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(status if status >= 0 else 128 - status)


def main(size: int, run_dir: str) -> NoReturn:
    meeting = Path(run_dir).resolve() / "meeting"
    meeting.unlink(missing_ok=True)  # of ranks that were killed
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        ranks += [start(rank, size, run_dir, meeting) for rank in range(size)]
        # Before, it ends us, and them. Mostly the whole group is sent it; twice is as good as once.
        signal.signal(signal.SIGTERM, lambda number, _: pass_on(number, ranks))
        status = wait_for(ranks)
    finally:
        end(ranks)
        meeting.unlink(missing_ok=True)
    exit_as(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
