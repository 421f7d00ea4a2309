"""What a gateway may let an organisation spend: arithmetic, without a store or a clock.

Of what is *granted* to the gateway, requests under way *hold* the most that each may cost. A charge comes off what is
granted at once; until it is known to be committed it is *pending*, and the store goes on holding it too. So the store
never holds less than may still be spent.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Purse:
    """All in micro-dollars. `usual` is the most that was in use at once of late, and halves when it is not."""

    granted: int = 0
    held: int = 0
    pending: int = 0
    peak: int = 0
    usual: int = 0

    @property
    def free(self) -> int:
        return self.granted - self.held

    @property
    def kept(self) -> int:
        """What the store has to hold as things are."""
        return max(0, self.granted + self.pending)

    def take(self, micros: int) -> bool:
        held = self.held + micros
        if held > self.granted:
            return False
        self.held = held
        self.peak = max(self.peak, held)
        return True

    def give_back(self, micros: int) -> None:
        self.held -= micros

    def spend(self, micros: int) -> None:
        self.granted -= micros
        self.pending += micros
        self.peak += micros  # as much again will be wanted

    def committed(self, micros: int) -> None:
        self.pending -= micros

    def begin_period(self) -> None:
        self.usual, self.peak = max(self.peak, self.usual // 2), self.held

    def change(self, need: int, available: int, *, is_wanted: bool = False) -> int:
        """How much more to ask of what is `available` (less, where negative) so that `need` can be taken.

        Something for the next requests comes with it, though never more than half of what there is, and none of it
        stays where another gateway lacks it.
        """
        lacking = need - self.free
        if available < 0:
            return max(available, min(0, -self.free))
        spare = 0 if is_wanted else 2 * max(self.usual, self.peak)
        ahead = max(lacking, spare - self.granted)
        if lacking > available:
            return available if lacking > 0 else 0
        return max(lacking, min(ahead, available // 2)) if ahead > 0 else ahead
