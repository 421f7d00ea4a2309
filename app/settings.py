"""Every knob of the server; the only reader of the environment."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Each field is the environment variable `LOAM_<FIELD>`; a `.env` file is read too."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", env_file=".env", extra="ignore")

    # where things are
    data_dir: Path = Path(".loam")
    database_url: str | None = Field(None, description="SQLAlchemy URL; SQLite in the data dir when unset")
    catalog: Path = ROOT / "models.yaml"

    # the gateway
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    key_cache_seconds: PositiveFloat = 2.0
    max_file_bytes: PositiveInt = 1 << 30
    max_body_bytes: PositiveInt = 16 << 20
    max_stored_files: PositiveInt = 10_000
    max_stored_bytes: PositiveInt = 100 << 30
    max_queued_jobs: PositiveInt = 100
    max_requests_at_once: PositiveInt | None = Field(
        None, description="of one organisation, unless it has another limit"
    )
    websocket_seconds: PositiveFloat = 3600.0
    response_retention_days: PositiveFloat = 30.0
    job_event_retention_days: PositiveFloat = 90.0
    max_background_responses: PositiveInt = 1000
    shutdown_grace_seconds: PositiveFloat = 20.0
    welcome_credit_cents: int = 10_000
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = "info"
    log_prompts: bool = False

    # engines
    engine_python: Path = Path(sys.executable)
    standby_engines: int | None = Field(None, ge=0, description="1 when unset, none when simulating")
    engine_extra_args: list[str] = []
    cold_start_seconds: PositiveFloat = 600.0
    stream_silence_seconds: PositiveFloat = 120.0
    keep_alive_seconds: PositiveFloat = 10.0
    engine_start_seconds: PositiveFloat = 1800.0
    engine_idle_seconds: PositiveFloat = 1800.0
    engine_stop_seconds: PositiveFloat = 10.0
    sleep_mode: bool = False
    sleep_after_seconds: NonNegativeFloat = 120.0
    settle_seconds: NonNegativeFloat = 5.0
    drain_after_seconds: NonNegativeFloat = 30.0
    max_waiting: PositiveInt = 256
    replica_in_flight: PositiveInt = 32
    cpu_kv_cache_gib: PositiveInt = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_loras: PositiveInt = 4
    max_cpu_loras: PositiveInt = 32
    gpu_fallback: bool = False

    # devices
    cpu_slots: PositiveInt = 2
    devices: list[str] | None = Field(None, description='what to believe instead of looking: ["A100:2", "H100:8"]')
    devices_hidden: list[int] = Field([], description="numbers of accelerators that are left alone: [0]")
    devices_for_engines: list[int] = []
    devices_for_training: list[int] = []
    cuda_visible_devices: str | None = Field(None, validation_alias="CUDA_VISIBLE_DEVICES", exclude=True)

    # training
    lease_seconds: PositiveFloat = 15.0
    poll_seconds: PositiveFloat = 0.5
    max_attempts: PositiveInt = 5
    checkpoint_every_steps: PositiveInt = 10
    preview_seconds: PositiveFloat = 60.0
    keep_checkpoints: PositiveInt = 3

    # the simulated engine and recipe
    simulate: bool = False
    simulate_tokens_per_second: float = 200.0
    simulate_start_seconds: float = 0.0
    simulate_training_seconds: float = 2.0
    simulate_faults: list[str] = []
    simulate_training_faults: list[str] = []

    def as_environment(self) -> dict[str, str]:
        """What a child process needs to read the same settings."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return {
            f"LOAM_{name.upper()}": value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in given.items()
            if value is not None
        }

    @property
    def standbys(self) -> int:
        return int(not self.simulate) if self.standby_engines is None else self.standby_engines

    @property
    def store_url(self) -> str:
        if self.database_url:
            return self.database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'loam.db'}"
