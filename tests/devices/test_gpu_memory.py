"""A device is started on when the one before has given its memory back."""

from collections.abc import Sequence

import pytest

from app.devices.gpu_memory import free_shares, until_free
from app.devices.inventory import declared

pytestmark = pytest.mark.anyio


class Driver:
    """Gives memory back bit by bit."""

    def __init__(self, *shares: list[float]) -> None:
        self.shares = list(shares)
        self.asked: list[list[int]] = []

    def __call__(self, indices: Sequence[int]) -> list[float]:
        self.asked.append(list(indices))
        return self.shares.pop(0) if len(self.shares) > 1 else self.shares[0]


async def test_a_start_waits_until_enough_is_free_on_each_of_its_devices() -> None:
    driver = Driver([0.2, 1.0], [1.0, 0.5], [0.95, 0.95])
    assert await until_free(declared(["A100:2"]), 0.9, look=driver)
    assert driver.asked == [[0, 1]] * 3


async def test_memory_that_another_program_holds_is_not_waited_for_for_ever() -> None:
    assert not await until_free(declared(["A100"]), 0.9, look=Driver([0.5]), within_seconds=0.3)


async def test_a_cpu_and_a_driver_that_tells_nothing_are_not_waited_for() -> None:
    driver = Driver([0.0])
    assert await until_free(declared(["CPU:2"]), 0.9, look=driver)
    assert driver.asked == []
    assert await until_free(declared(["A100"]), 0.9, look=Driver([]))


def test_without_a_driver_nothing_is_told() -> None:
    assert all(0 <= share <= 1 for share in free_shares([]))
