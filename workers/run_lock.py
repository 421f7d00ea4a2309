"""One recipe at a time writes a run folder: a lock that the kernel frees when the last who has it open is dead."""

import asyncio
import fcntl
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from app.processes import signal_group

NAME = "lock"
LOOK_SECONDS = 0.05
DEATH_SECONDS = 5.0  # a process in the middle of a write to a slow disk dies late


class Occupied(Exception):
    """Another recipe writes here, and it is not one that we can end."""


def open_lock(folder: Path) -> IO[bytes]:
    """The lock, not taken yet. It is for `pass_fds`: whoever has inherited it holds it too."""
    return (folder / NAME).open("a+b")


def is_taken(lock: IO[bytes]) -> bool:
    """True if we have it now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    lock.truncate(0)
    return True


def name_holder(lock: IO[bytes], pid: int) -> None:
    """Whoever finds the folder occupied reads whom to end; where the disk is full, they have to wait."""
    with suppress(OSError):
        os.write(lock.fileno(), f"{socket.gethostname()} {pid}".encode())


async def take_from_holder(lock: IO[bytes]) -> None:
    """End the recipe that holds the lock, and take it. Raises Occupied when it is another host's, or does not die."""
    if pid := _holder_here(lock):
        signal_group(pid, signal.SIGKILL)
    deadline = time.monotonic() + DEATH_SECONDS
    while not is_taken(lock):
        if not pid or time.monotonic() > deadline:
            raise Occupied
        await asyncio.sleep(LOOK_SECONDS)


def _holder_here(lock: IO[bytes]) -> int | None:
    """The leader of the holder's group, if it is a process of this host that has this very file open."""
    lock.seek(0)
    host, _, pid = lock.read().decode().partition(" ")
    if host != socket.gethostname() or not pid.isdecimal():
        return None
    try:
        opened = psutil.Process(int(pid)).open_files()
    except psutil.Error:
        return None
    return int(pid) if any(Path(file.path).samefile(lock.name) for file in opened) else None
