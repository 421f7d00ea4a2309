"""How engines are started: the flags that matter, for each kind of device."""

from pathlib import Path
from typing import Any

from app.catalog.spec import GpuChoice
from app.devices.inventory import declared
from app.engines.command import Command, engine_command
from app.settings import Settings
from tests.rows import CATALOG

SPEC = CATALOG.models[0]


def command(gpu: str, *, simulate: bool = False, **changes: Any) -> Command:
    settings, choice = Settings(simulate=simulate, engine_python=Path("py")), GpuChoice.parse(gpu)
    devices = declared([gpu])
    return engine_command(settings, SPEC.model_copy(update=changes), choice, devices, Path("x.sock"))


def value_of(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_an_engine_on_gpus_sees_only_its_own() -> None:
    started = command("A100:2")
    assert started.argv[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    assert (value_of(started.argv, "--uds"), value_of(started.argv, "--tensor-parallel-size")) == ("x.sock", "2")
    assert started.env["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_engine_on_the_cpu_compiles_nothing_and_takes_no_gpu() -> None:
    started = command("CPU")
    assert "--enforce-eager" in started.argv
    assert "CUDA_VISIBLE_DEVICES" not in started.env


def test_code_of_a_model_is_never_trusted_and_nothing_is_reported_home() -> None:
    started = command("A100")
    assert "--trust-remote-code" not in started.argv
    assert started.env["VLLM_NO_USAGE_STATS"] == "1"


def test_adapters_are_for_models_that_can_be_trained() -> None:
    assert value_of(command("A100").argv, "--max-lora-rank") == str(SPEC.max_lora_rank)
    assert "--enable-lora" not in command("A100", trainable=False).argv


def test_parsers_are_the_models_own() -> None:
    assert "--tool-call-parser" not in command("A100").argv
    started = command("A100", tool_parser="hermes", reasoning_parser="qwen3").argv
    assert (value_of(started, "--tool-call-parser"), value_of(started, "--reasoning-parser")) == ("hermes", "qwen3")
    assert "--enable-auto-tool-choice" in started


def test_a_simulated_engine_is_told_the_same() -> None:
    simulated = command("A100", simulate=True).argv
    assert simulated[2] == "app.engines.simulated"
    for flag in ("--uds", "--model", "--served-model-name", "--max-lora-rank"):
        assert value_of(simulated, flag) == value_of(command("A100").argv, flag)
