"""Shows training rows as the recipe reads them: a small child process of the workers, one at a time."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import orjson
import structlog

from app.errors import Unavailable
from app.processes import end_group, spawn

log = structlog.get_logger()

MAX_ANSWER_BYTES = 16 << 20
LOG_TAIL_BYTES = 2000
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


class NoPreview(Unavailable):
    code = "preview_failed"


@dataclass(frozen=True)
class Previews:
    """The time that one may take counts from when it is asked for, with its wait for those before it."""

    seconds: float
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def show(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NoPreview. The child does not outlive the caller, also one that is cancelled."""
        try:
            async with asyncio.timeout(self.seconds), self._turn:
                return await _ask_child(order)
        except TimeoutError as error:
            raise NoPreview(f"The preview was not ready within {self.seconds:g} seconds; try fewer rows.") from error


async def _ask_child(order: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        argv = [sys.executable, "-m", "workers.preview", orjson.dumps(order).decode()]
        child = await spawn(argv, log=output, env=WITHOUT_GPU, orphan_signal=signal.SIGKILL)
        try:
            await child.wait()
        finally:
            await end_group(child, grace_seconds=0)
        return _answer(output, child.returncode)


def _answer(output: IO[bytes], status: int | None) -> dict[str, Any]:
    """The last line; before it stands whatever libraries had to say."""
    size = os.fstat(output.fileno()).st_size
    if status == 0 and size <= MAX_ANSWER_BYTES:
        output.seek(0)
        answer: dict[str, Any] = orjson.loads(output.read().rpartition(b"\n")[2])
        return answer
    output.seek(max(0, size - LOG_TAIL_BYTES))
    log.error("a preview failed", status=status, size_bytes=size, log=output.read().decode("utf-8", "replace"))
    raise NoPreview("The rows could not be read with this model's tokenizer just now; the server's log says why.")
