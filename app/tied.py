"""Becomes another program, to which the kernel sends a signal when its parent is gone.

tied.py PARENT_PID SIGNAL PROGRAM [ARGUMENT…]

A script of its own, without imports, since every child starts through it.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def exec_tied_to(parent_pid: int, number: int, argv: list[str]) -> None:
    """On Linux; elsewhere the program is only become."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    exec_tied_to(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
