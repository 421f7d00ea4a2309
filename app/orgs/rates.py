"""Rate limits of so much a minute, as buckets that fill up again all the time. Pure: the time goes in."""

from dataclasses import dataclass

MINUTE = 60.0
ROUNDING = 1e-6  # what is left of ten sevenths of a minute is ten, not a hair less


@dataclass(slots=True)
class Bucket:
    """Full, it holds a minute's worth, and it may be overdrawn: what is owed flows in first.

    `full_at` is when it will be full if nothing more is taken; `unshared_seconds` by how much we have put that off
    and have told nobody yet; `heard_at` when we last heard what others took.
    """

    per_minute: int
    full_at: float
    heard_at: float
    used_at: float
    unshared_seconds: float = 0.0

    def left(self, now: float) -> float:
        return (MINUTE - self.reset_seconds(now)) * self.per_minute / MINUTE + ROUNDING

    def reset_seconds(self, now: float) -> float:
        return self.full_at - now if self.full_at > now else 0.0

    def wait_seconds(self, now: float) -> float:
        """Until one is left; nothing is ever left of a limit of 0."""
        if not self.per_minute:
            return MINUTE
        return max(0.0, self.reset_seconds(now) - MINUTE + MINUTE / self.per_minute)

    def take(self, amount: int, now: float) -> None:
        seconds = amount * MINUTE / max(self.per_minute, 1)
        self.full_at = max(now, self.full_at) + seconds
        self.unshared_seconds += seconds
        self.used_at = now

    def hear(self, full_in_seconds: float, shared_seconds: float, now: float) -> None:
        """What all have taken together, `shared_seconds` of it by us."""
        self.unshared_seconds -= shared_seconds
        self.full_at = now + max(0.0, full_in_seconds) + self.unshared_seconds
        self.heard_at = now


def as_duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `7.66s`, `1m4s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < MINUTE:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"
