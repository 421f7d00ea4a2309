"""An environment of its own for the `synth-ai` package, whose wishes do not go together with ours."""

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent / ".envs" / "synth-ai"
PACKAGE = "synth-ai==0.2.24"
# What its clients import, of the sixty packages that it asks for.
NEEDED = (
    "aiohttp",
    "click<8.2",
    "fastapi",
    "httpx",
    "libsql",
    "modal<2",
    "pydantic",
    "pynacl",
    "python-dotenv",
    "requests",
    "rich",
    "sqlalchemy",
    "tomli-w",
    "tqdm",
    "uvicorn",
)


def synth_python() -> Path:
    """Its Python; made once, in a minute."""
    python, done = HOME / "bin" / "python", HOME / f".installed-{PACKAGE}"
    if not done.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(HOME))
        pip = (str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        _run(*pip, "--no-deps", PACKAGE)
        _run(*pip, *NEEDED)
        done.touch()
    return python


def _run(*argv: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
