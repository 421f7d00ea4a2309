"""What organisations have left, as this gateway knows it: asked from the ledger now and then, and counted on."""

import time
from dataclasses import dataclass

from app.billing.ledger import InsufficientFunds, balance_micros
from app.store.session import Store

MAX_ASKING_SHARE = 0.05  # of the time: the sum over a long ledger takes its time


@dataclass
class _Balance:
    micros: int
    asked_at: float
    good_seconds: float


class Funds:
    """A balance is good for a few seconds; what this gateway charges meanwhile is taken off at once."""

    def __init__(self, store: Store, *, cache_seconds: float) -> None:
        self._store = store
        self._cache_seconds = cache_seconds
        self._known: dict[str, _Balance] = {}

    def are_known(self, org_id: str) -> bool:
        """Whether there is something left as of a moment ago."""
        known = self._known.get(org_id)
        return known is not None and known.micros > 0 and time.monotonic() - known.asked_at < known.good_seconds

    async def require(self, org_id: str) -> None:
        """Raises InsufficientFunds unless there is something left to spend; only the ledger itself says no."""
        if self.are_known(org_id):
            return
        now, known = time.monotonic(), self._known.get(org_id)
        if known and known.micros > 0:
            known.asked_at = now  # the others go on with what is known while one asks
        async with self._store.read() as session:
            micros = await balance_micros(session, org_id)
        took = time.monotonic() - now
        self._known[org_id] = _Balance(micros, now, max(self._cache_seconds, took / MAX_ASKING_SHARE))
        if micros <= 0:
            raise InsufficientFunds

    def spend(self, org_id: str, micros: int) -> None:
        if known := self._known.get(org_id):
            known.micros -= micros
