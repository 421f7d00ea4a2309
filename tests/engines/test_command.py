"""How engines are started: the flags that matter, for each kind of device."""

from pathlib import Path
from typing import Any

from app.catalog.spec import GpuChoice
from app.devices.inventory import declared
from app.engines.command import Command, engine_command
from app.settings import Settings
from tests.rows import CATALOG

SPEC = CATALOG.models[0]


def command(gpu: str, *, simulate: bool = False, sleep_mode: bool = False, **changes: Any) -> Command:
    settings = Settings(simulate=simulate, sleep_mode=sleep_mode, engine_python=Path("py"))
    choice = GpuChoice.parse(gpu)
    devices = declared([gpu])
    return engine_command(settings, SPEC.model_copy(update=changes), choice, devices, Path("x.sock"))


def value_of(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_an_engine_on_gpus_sees_only_its_own() -> None:
    started = command("A100:2")
    assert (started.program.python, started.program.module) == (Path("py"), "vllm.entrypoints.openai.api_server")
    assert value_of(started.arguments, "--uds") == "x.sock"
    assert value_of(started.arguments, "--tensor-parallel-size") == "2"
    assert started.env["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_engine_on_the_cpu_compiles_nothing_and_takes_no_gpu() -> None:
    started = command("CPU")
    assert "--enforce-eager" in started.arguments
    assert "CUDA_VISIBLE_DEVICES" not in started.env


def test_code_of_a_model_is_never_trusted_and_nothing_is_reported_home() -> None:
    started = command("A100")
    assert "--trust-remote-code" not in started.arguments
    assert started.program.env["VLLM_NO_USAGE_STATS"] == "1"


def test_an_engine_gives_up_a_start_no_sooner_than_we_do() -> None:
    patience = str(int(Settings().engine_start_seconds))
    assert command("A100").program.env["VLLM_ENGINE_READY_TIMEOUT_S"] == patience  # of the program: read at import


def test_adapters_are_for_models_that_can_be_trained() -> None:
    assert value_of(command("A100").arguments, "--max-lora-rank") == str(SPEC.max_lora_rank)
    assert "--enable-lora" not in command("A100", trainable=False).arguments


def test_parsers_are_the_models_own() -> None:
    assert "--tool-call-parser" not in command("A100").arguments
    started = command("A100", tool_parser="hermes", reasoning_parser="qwen3").arguments
    assert (value_of(started, "--tool-call-parser"), value_of(started, "--reasoning-parser")) == ("hermes", "qwen3")
    assert "--enable-auto-tool-choice" in started


def test_a_simulated_engine_is_told_the_same() -> None:
    simulated = command("A100", simulate=True)
    assert simulated.program.module == "app.engines.simulated"
    for flag in ("--uds", "--model", "--served-model-name", "--max-lora-rank"):
        assert value_of(simulated.arguments, flag) == value_of(command("A100").arguments, flag)


def test_the_routes_of_sleep_are_there_where_sleep_is_wanted() -> None:
    wanted, not_wanted, on_cpu = command("A100", sleep_mode=True), command("A100"), command("CPU", sleep_mode=True)
    assert "--enable-sleep-mode" in wanted.arguments
    assert wanted.program.env["VLLM_SERVER_DEV_MODE"] == "1"  # of the program: a standby has read it already
    for other in (not_wanted, on_cpu):
        assert "--enable-sleep-mode" not in other.arguments
        assert "VLLM_SERVER_DEV_MODE" not in other.program.env


def test_every_model_is_prompted_by_the_template_that_is_trained_with() -> None:
    assert value_of(command("A100").arguments, "--tokenizer-mode") == "hf"
