"""The programs in C, compiled when their source is newer."""

import shutil
import subprocess
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
BUILD = Path(__file__).parent / ".build"


class NoCompiler(Exception):
    """The message tells what to install."""


def compiled(name: str) -> Path:
    """The executable of `native/NAME.c`. Raises NoCompiler."""
    program = BUILD / name
    newest = max(path.stat().st_mtime for path in NATIVE.iterdir())
    if not program.exists() or program.stat().st_mtime < newest:
        _compile(NATIVE / f"{name}.c", program)
    return program


def _compile(source: Path, program: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler("The bench needs a C compiler (`cc`). On Debian and Ubuntu: apt install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
