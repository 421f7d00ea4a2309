"""Those who wait for devices: requests, for an engine, and what waits elsewhere, whose process takes them itself."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import count

from app.catalog.resolve import Target
from app.devices.wishes import Wish
from app.engines.engine import Engine
from app.engines.placement import Wanted
from app.engines.waiting import FairQueue
from app.errors import APIError, Unavailable

ELSEWHERE = "elsewhere"  # among organisations, jobs and requests at other gateways together are one


class QueueFull(APIError):
    """As many wait for an engine as may."""

    status_code, type, code = 429, "rate_limit_error", "queue_full"
    headers = {"Retry-After": "10"}


class NoCapacity(Unavailable):
    code = "no_capacity"
    headers = {"Retry-After": "15"}


@dataclass(eq=False)
class Waiter:
    """A request, until it is placed on an engine or refused."""

    target: Target
    org_id: str
    number: int = field(default_factory=count().__next__)
    since: float = field(default_factory=time.monotonic)
    placed: asyncio.Future[Engine] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def has_left(self) -> bool:
        """Its client has gone; it is about to say so itself."""
        return self.placed.cancelled()

    @property
    def lane(self) -> str:
        """Organisations take turns at what is alike: who waits for many devices keeps its others from nothing."""
        return f"{self.org_id} {self.target.gpu}"

    def wanted(self) -> Wanted:
        return Wanted(self.target.model.id, self.target.gpu, time.monotonic() - self.since)


@dataclass(eq=False)
class WaitingElsewhere:
    """A job, or a request at another gateway of this host."""

    wish: Wish
    lane: str

    def wanted(self) -> Wanted:
        return Wanted(None, self.wish.gpu, self.wish.waited_seconds)


class Waiters:
    """All who wait at one gateway, in the order of their turns; at most `max_waiting` requests."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._queue = FairQueue[Waiter | WaitingElsewhere]()
        self._elsewhere: dict[str, WaitingElsewhere] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def in_turn(self) -> list[Waiter | WaitingElsewhere]:
        return [one for one in self._queue if not (isinstance(one, Waiter) and one.has_left)]

    def requests(self) -> list[Waiter]:
        return [one for one in self.in_turn() if isinstance(one, Waiter)]

    def add(self, target: Target, org_id: str) -> Waiter:
        """Raises QueueFull."""
        if len(self._queue) - len(self._elsewhere) >= self._max_waiting:
            raise QueueFull(f"{self._max_waiting} requests wait for an engine already; try again.")
        waiter = Waiter(target, org_id)
        self._queue.add(waiter.lane, waiter)
        return waiter

    def place(self, waiter: Waiter, engine: Engine) -> None:
        """The engine is its from now on: whoever waits on it gives it back, also when it has left meanwhile."""
        engine.in_flight += 1
        self._queue.serve(waiter.lane, waiter)
        waiter.placed.set_result(engine)

    def refuse(self, waiter: Waiter, error: APIError) -> None:
        self._queue.leave(waiter.lane, waiter)
        waiter.placed.set_exception(error)

    def leave(self, waiter: Waiter) -> None:
        self._queue.leave(waiter.lane, waiter)

    def see_wishes(self, wishes: list[Wish]) -> None:
        """What waits elsewhere now. One that waits no more got its devices, or was given up."""
        known = {wish.holder: wish for wish in wishes}
        for holder in self._elsewhere.keys() - known.keys():
            gone = self._elsewhere.pop(holder)
            self._queue.serve(gone.lane, gone)
        for holder, wish in known.items():
            if holder in self._elsewhere:
                self._elsewhere[holder].wish = wish
            else:
                one = self._elsewhere[holder] = WaitingElsewhere(wish, f"{ELSEWHERE} {wish.gpu}")
                self._queue.add(one.lane, one)
