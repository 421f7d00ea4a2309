"""What a side is made of."""

import subprocess
from pathlib import Path

from bench.relay.sides import program


def test_a_program_runs_what_it_stands_for_with_what_it_is_given(tmp_path: Path) -> None:
    echo = program(tmp_path / "echo", ["echo", "two words"])
    said = subprocess.run([echo, "three", "$HOME"], capture_output=True, check=True).stdout
    assert said == b"two words three $HOME\n"
