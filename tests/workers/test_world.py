"""What several processes do together, none of them does alone."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.forks import FORKS
from workers.sft_errors import TrainingError
from workers.world import World

pytestmark = pytest.mark.training


class Late(Exception):
    """A kind of error that comes after another."""


def gradients_of(world: World, *, has_rows: bool) -> list[float]:
    weight, bias = (torch.nn.Parameter(torch.ones(n)) for n in (3, 1))
    if has_rows:
        (weight.sum() * 2 + bias.sum()).backward()
    world.add_gradients([weight, bias])
    return [gradient for p in (weight, bias) if p.grad is not None for gradient in p.grad.tolist()]


def raised_together(world: World, error: Exception | None) -> str:
    try:
        with world.together(ValueError, Late):
            if error:
                raise error
    except (ValueError, Late) as told:
        return type(told).__name__
    return "nothing"


def have_same_step(world: World, step: int) -> bool:
    try:
        world.require_same(step)
    except TrainingError:
        return False
    return True


def member(rank: int, meeting: Path) -> dict[str, Any]:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(number) for name, number in numbers.items()}, GLOO_SOCKET_IFNAME="lo")
    world = World.join("cpu", meeting)
    is_first = world.is_first
    told = {
        "who": (world.rank, world.size, is_first),
        "sums": world.sums(rank + 1, 0.5),
        "gradients": gradients_of(world, has_rows=is_first),
        "no error": raised_together(world, None),
        "error of one": raised_together(world, Late() if is_first else None),
        "errors of two kinds": raised_together(world, Late() if is_first else ValueError()),
        "same step": have_same_step(world, 7),
        "other step": have_same_step(world, 7 + rank),
    }
    world.leave()
    return told


def test_what_one_process_finds_all_know(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        told = list(pool.map(member, (0, 1), [tmp_path / "meeting"] * 2))
    assert [one.pop("who") for one in told] == [(0, 2, True), (1, 2, False)]
    for one in told:
        assert one == {
            "sums": [3.0, 1.0],
            "gradients": [2.0, 2.0, 2.0, 1.0],
            "no error": "nothing",
            "error of one": "Late",
            "errors of two kinds": "Late",
            "same step": True,
            "other step": False,
        }


def test_one_process_alone_keeps_what_it_has() -> None:
    alone = World(torch.device("cpu"))
    assert alone.sums(1, 0.5) == [1, 0.5]
    assert gradients_of(alone, has_rows=True) == [2.0, 2.0, 2.0, 1.0]
    assert (raised_together(alone, Late()), raised_together(alone, None)) == ("Late", "nothing")
    assert have_same_step(alone, 7)
