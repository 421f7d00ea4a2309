"""An engine's log: a file for each start, of which the last ones are kept, none of them without end."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from app.engines.progress import Progress, progress_of

KEPT = 3
MAX_BYTES = 32 << 20
TAIL_LINES = 30
TAIL_BYTES = 256 << 10
# What vLLM's libraries say at the end of every process, after what matters.
NOISE = re.compile(r"^(nanobind: |See https://nanobind| - (leaked|\.\.\.) )")
ENDS_LINE = re.compile(r"[\r\n]+")  # progress bars go back to the beginning of their line
CAUSE = re.compile(r"(?:^|\] )([\w.]*(?:Error|Exception)(?:: .*)?|[^\]]*\bout of memory\b.*)$")


class EngineLog:
    """The engine appends to it; so it may be cut short below its hands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotate(self) -> None:
        """`x.log` -> `x.log.1` -> `x.log.2`: a crash can be read about after the restart."""
        for number in range(KEPT - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number - 1).rename(self._numbered(number))

    def bound(self, max_bytes: int = MAX_BYTES) -> None:
        """Begin anew when it has become too long, keeping the old one as `rotate` does; a line or two may be lost."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size > max_bytes:
                with suppress(OSError):  # a full disk needs the room all the more
                    shutil.copyfile(self.path, self._numbered(1))
                os.truncate(self.path, 0)

    def tail(self) -> list[str]:
        return [line[:300] for line in self._lines()[-TAIL_LINES:]]

    def progress(self) -> Progress:
        return progress_of(self._lines())

    def cause(self) -> str | None:
        """The first error since the start, which the others follow from."""
        found = (CAUSE.search(line) for line in self._lines())
        return next((match[1][:300] for match in found if match), None)

    def _lines(self) -> list[str]:
        """The last of them."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - TAIL_BYTES))
                text = file.read(TAIL_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line.rstrip() for line in ENDS_LINE.split(text) if line.strip() and not NOISE.match(line)]

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
