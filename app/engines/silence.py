"""For how long an engine has let those wait who asked it."""

import time

PROBE_SECONDS = 20.0


class Silence:
    """Begins with the first who waits, and goes on when that one gives up and comes again."""

    def __init__(self) -> None:
        self.last_heard = self._since = time.monotonic()

    def first_waits(self, *, last_used: float) -> None:
        now = time.monotonic()
        if self.last_heard >= self._since or now - last_used > PROBE_SECONDS:
            self._since = now

    def heard(self) -> None:
        """A sign of life: bytes have come."""
        self.last_heard = time.monotonic()

    def seconds(self, now: float) -> float:
        return now - max(self.last_heard, self._since)
