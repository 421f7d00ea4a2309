"""The command `loam` in this process, for what it does and says: to start a Python takes longer than most of that."""

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from unittest.mock import patch

import structlog

from app.cli import main
from app.terminal import err, out


def loam(env: Mapping[str, str], *arguments: str) -> CompletedProcess[str]:
    """As a process with that environment alone would do it; COLUMNS is 80 unless given."""
    with ThreadPoolExecutor(1) as thread:  # the test may be running a loop of its own
        return thread.submit(_run, env, list(arguments)).result()


def _run(env: Mapping[str, str], arguments: list[str]) -> CompletedProcess[str]:
    columns, logging = int(env.get("COLUMNS", 80)), structlog.get_config()
    status: int | str | None = 0
    with (
        patch.dict(os.environ, env, clear=True),
        patch.object(sys, "argv", ["loam", *arguments]),
        patch.object(out, "_width", columns),
        patch.object(err, "_width", columns),
        redirect_stdout(StringIO()) as stdout,
        redirect_stderr(StringIO()) as stderr,
    ):
        try:
            main()
        except SystemExit as left:
            status = left.code
        finally:
            structlog.configure(**logging)
    assert isinstance(status, int | None), status
    return CompletedProcess(arguments, status or 0, stdout.getvalue(), stderr.getvalue())
