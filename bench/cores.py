"""Which core is the gateway's, and which are the others: who else is on either is each bench's own."""

import os
import resource
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass


class CannotPin(Exception):
    """The message says what this host lacks."""


@dataclass(frozen=True)
class Cores:
    gateway: int
    others: tuple[int, ...]

    @classmethod
    def among(cls, allowed: Collection[int]) -> "Cores":
        """Raises CannotPin."""
        first, *others = sorted(allowed)
        if not others:
            raise CannotPin("The bench needs two cores: one for the gateway, one for the engine and the load.")
        return cls(first, tuple(others))

    def told(self, on_first: str, on_others: str) -> str:
        """Who is where."""
        return f"{on_first} on {self.gateway}; {on_others} on {', '.join(map(str, self.others))}"

    def for_gateway(self, argv: Sequence[str]) -> list[str]:
        return ["taskset", "-c", str(self.gateway), *argv]

    def for_others(self, argv: Sequence[str]) -> list[str]:
        return ["taskset", "-c", ",".join(map(str, self.others)), *argv]


def take_place(*, with_gateway: bool = False) -> Cores:
    """This process, and what it starts, on the others or on the gateway's; open files up to the hard limit.

    Raises CannotPin.
    """
    if shutil.which("taskset") is None:
        raise CannotPin("The bench needs taskset. On Debian and Ubuntu: apt install util-linux")
    cores = Cores.among(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores.gateway} if with_gateway else cores.others)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return cores
