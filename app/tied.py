"""Becomes another program that the kernel kills when its parent is gone: tied.py PARENT_PID PROGRAM [ARGUMENT…]

A script of its own, without imports, since every child starts through it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def exec_tied_to(parent_pid: int, argv: list[str]) -> None:
    """On Linux; elsewhere the program is only become."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    exec_tied_to(int(sys.argv[1]), sys.argv[2:])
