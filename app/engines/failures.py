"""What became of an engine that failed: what is told of it, and when it may be tried again."""

import signal
import time
from typing import Any

import structlog

from app.engines.engine_log import EngineLog
from app.errors import Unavailable

log = structlog.get_logger()

MAX_BACK_OFF_SECONDS = 60.0
STEADY_SECONDS = 60.0  # who has run for so long did not fail because it was started


class StartFailed(Unavailable):
    """The engine cannot start; `troubleshooting` has its last log lines."""

    code = "engine_start_failed"


class Crashed(Unavailable):
    """It had started, and then ended by itself, or hung and was ended.

    What it had logged by then may be about anybody's requests: their adapters, schemas, stop strings. Only our own log
    has it.
    """

    code = "engine_crashed"


class Failures:
    """In a row, of one engine. The first crash costs nobody a wait; whatever fails again and again, more and more."""

    def __init__(self, model_id: str, engine_log: EngineLog) -> None:
        self.last: StartFailed | Crashed | None = None
        self.retry_at = 0.0
        self._model_id = model_id
        self._log = engine_log
        self._in_a_row = 0

    def check(self) -> None:
        """Raises the last one until its back-off is over, and forgets it then."""
        if self.last and time.monotonic() < self.retry_at:
            raise self.last
        self.last = None

    def start_failed(self, error: Exception) -> None:
        self._in_a_row += 1
        reason = "it was not healthy in time" if isinstance(error, TimeoutError) else str(error)
        tail, cause = self._log.tail(), self._log.cause()
        message = f"The engine of {self._model_id} could not start: {reason}{f' ({cause})' if cause else ''}."
        self._refuse(StartFailed, message, back_off_seconds=2.0**self._in_a_row, told={"log": tail})

    def crashed(self, what: str, *, after_seconds: float) -> None:
        self._in_a_row = 1 if after_seconds > STEADY_SECONDS else self._in_a_row + 1
        message = f"The engine of {self._model_id} {what}; the server's log has its last words."
        self._refuse(Crashed, message, back_off_seconds=0.0 if self._in_a_row == 1 else 2.0**self._in_a_row)

    def _refuse(
        self,
        kind: type[StartFailed | Crashed],
        message: str,
        *,
        back_off_seconds: float,
        told: dict[str, Any] | None = None,
    ) -> None:
        back_off = min(MAX_BACK_OFF_SECONDS, back_off_seconds)
        self.retry_at = time.monotonic() + back_off
        tail, cause = self._log.tail()[-5:], self._log.cause()
        log.error("engine failed", model=self._model_id, reason=message, cause=cause, log_tail=tail)
        self.last = kind(message, troubleshooting=told, headers={"Retry-After": str(max(1, round(back_off)))})


def how_it_ended(status: int) -> str:
    """Of a process, by its exit status."""
    if status >= 0:
        return f"ended with status {status}"
    memory = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{memory}"
