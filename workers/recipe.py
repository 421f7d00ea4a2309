"""How a job's recipe is started: its program and its environment. Pure."""

import sys
from collections.abc import Sequence
from pathlib import Path

from app.devices.inventory import Device, cpu_threads


def recipe_command(run_dir: Path, devices: Sequence[Device], *, simulate: bool) -> list[str]:
    """A process for each device; the simulated one has use for none of them."""
    if simulate:
        program = ["workers.simulated_sft"]
    elif len(devices) == 1:
        program = ["workers.sft"]
    else:
        program = ["workers.ranks", str(len(devices))]
    return [sys.executable, "-m", *program, str(run_dir)]


def recipe_environment(devices: Sequence[Device]) -> dict[str, str]:
    """Slots of the CPU share its cores; GPUs are numbered from 0 again, in this order."""
    env = {"TOKENIZERS_PARALLELISM": "false", "WANDB_ERROR_REPORTING": "false"}
    if devices[0].type == "CPU":
        return {**env, "OMP_NUM_THREADS": str(max(1, cpu_threads() // len(devices)))}
    numbers = ",".join(str(device.index) for device in devices)
    return {**env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}
