"""A job's devices decide how many processes its recipe is, and what they see."""

from pathlib import Path

import pytest

from app.devices.inventory import cpu_threads, declared
from workers.recipe import recipe_command, recipe_environment

RUN = Path("/runs/1")


@pytest.mark.parametrize(
    ("devices", "simulate", "program"),
    [
        ("A100", False, ["workers.sft", "/runs/1"]),
        ("A100:4", False, ["workers.ranks", "4", "/runs/1"]),
        ("CPU:2", False, ["workers.ranks", "2", "/runs/1"]),
        ("A100:4", True, ["workers.simulated_sft", "/runs/1"]),
    ],
)
def test_a_recipe_is_a_process_for_each_device(devices: str, simulate: bool, program: list[str]) -> None:
    assert recipe_command(RUN, declared([devices]), simulate=simulate)[2:] == program


def test_ranks_see_the_gpus_of_their_job_alone() -> None:
    env = recipe_environment(declared(["A100:4"])[1:3])
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("1,2", "PCI_BUS_ID")


def test_slots_of_the_cpu_share_its_threads() -> None:
    threads = [int(recipe_environment(declared([slots]))["OMP_NUM_THREADS"]) for slots in ("CPU", "CPU:2", "CPU:64")]
    assert threads == [cpu_threads(), max(1, cpu_threads() // 2), max(1, cpu_threads() // 64)]
