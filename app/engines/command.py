"""How an engine process is started: its program, its arguments and its environment. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices.inventory import Device, cpu_threads
from app.settings import Settings


@dataclass(frozen=True)
class Program:
    """An engine before it knows its model. `env` must be set before `preload` is imported.

    `forks`: it starts processes with multiprocessing that need what it has imported.
    """

    python: Path
    module: str
    preload: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    forks: bool = False


@dataclass(frozen=True)
class Command:
    program: Program
    arguments: list[str]
    env: dict[str, str] = field(default_factory=dict)


def engine_program(settings: Settings, *, on_cpu: bool) -> Program:
    """vLLM's own OpenAI server, or the simulated one."""
    if settings.simulate:
        preload = ("app.engines.simulated_engine",)
        return Program(settings.engine_python, "app.engines.simulated", preload, _sleep_env(settings))
    worker = "vllm.v1.worker.cpu_worker" if on_cpu else "vllm.v1.worker.gpu_worker"
    env = {**_common_env(settings), **(_cpu_env(settings) if on_cpu else _sleep_env(settings))}
    # `vllm serve` looks for a distribution named vllm, which the CPU build is not; the module works on both.
    forks = "--numa-bind" not in settings.engine_extra_args  # which binds by a program of its own in between
    return Program(settings.engine_python, "vllm.entrypoints.openai.api_server", (*PRELOAD, worker), env, forks)


def engine_command(
    settings: Settings, model: ModelSpec, gpu: GpuChoice, devices: Sequence[Device], socket: Path
) -> Command:
    on_cpu = gpu.type == "CPU"
    program = engine_program(settings, on_cpu=on_cpu)
    arguments = [
        *("--uds", str(socket)),
        *("--model", model.weights),
        *("--served-model-name", model.id),
        *("--max-model-len", _context_flag(settings, model, gpu)),
        *_lora_flags(settings, model),
        *_parser_flags(model),
        *(["--enable-sleep-mode"] if may_sleep(settings, gpu) else []),
    ]
    if settings.simulate:
        return Command(program, [*arguments, *_simulation(settings)])
    arguments += VLLM_FLAGS
    arguments += ["--enforce-eager"] if on_cpu else _cuda_flags(settings, gpu)
    return Command(program, [*arguments, *settings.engine_extra_args], {} if on_cpu else _cuda_env(devices))


PRELOAD = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.multiproc_executor",
)
VLLM_FLAGS = [
    # Else Mistral's models are prompted by a library of their own, and not by the template that is trained with.
    *("--tokenizer-mode", "hf"),
    *("--tool-strict-level", "parameter"),
    *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    "--enable-prompt-tokens-details",
    "--disable-uvicorn-access-log",
]


def _common_env(settings: Settings) -> dict[str, str]:
    return {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(math.ceil(settings.engine_start_seconds)),  # else it gives up after 600
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _context_flag(settings: Settings, model: ModelSpec, gpu: GpuChoice) -> str:
    """On a CPU, as much of the model's context as its cache has room for."""
    return "auto" if gpu.type == "CPU" and not settings.simulate else str(model.context_length)


def _lora_flags(settings: Settings, model: ModelSpec) -> list[str]:
    if not model.trainable:
        return []
    return [
        "--enable-lora",
        *("--max-lora-rank", str(model.max_lora_rank)),
        *("--max-loras", str(settings.max_loras)),
        *("--max-cpu-loras", str(max(settings.max_loras, settings.max_cpu_loras))),
    ]


def _parser_flags(model: ModelSpec) -> list[str]:
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", model.tool_parser] if model.tool_parser else []
    return flags + (["--reasoning-parser", model.reasoning_parser] if model.reasoning_parser else [])


def _cuda_flags(settings: Settings, gpu: GpuChoice) -> list[str]:
    return [
        *("--tensor-parallel-size", str(gpu.count)),
        *("--gpu-memory-utilization", str(settings.gpu_memory_utilization)),
    ]


def _cpu_env(settings: Settings) -> dict[str, str]:
    # By default the CPU engine pins itself to cores, and two engines on a small host to the same ones.
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(cpu_threads()),
    }


def _sleep_env(settings: Settings) -> dict[str, str]:
    """The routes of sleep are development's, open to whoever reaches the socket: that is this gateway alone."""
    return {"VLLM_SERVER_DEV_MODE": "1"} if settings.sleep_mode else {}


def may_sleep(settings: Settings, gpu: GpuChoice) -> bool:
    """vLLM can do it on GPUs only."""
    return settings.sleep_mode and gpu.type != "CPU"


def _cuda_env(devices: Sequence[Device]) -> dict[str, str]:
    numbers = ",".join(str(device.index) for device in devices)
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}


def _simulation(settings: Settings) -> list[str]:
    return [
        *("--simulate-tokens-per-second", str(settings.simulate_tokens_per_second)),
        *("--simulate-start-seconds", str(settings.simulate_start_seconds)),
        *(part for fault in settings.simulate_faults for part in ("--simulate-fault", fault)),
    ]
