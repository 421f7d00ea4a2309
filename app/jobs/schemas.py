"""Fine-tuning on the wire: what comes in, what goes out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from app.catalog.names import FULL
from app.jobs.hyperparameters import HyperparametersIn
from app.jobs.integrations import Integration
from app.jobs.training_type import SFT
from app.store.tables import Checkpoint, Job, JobEvent

WITHOUT_NUL = r"^[^\x00]*$"

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64, pattern=WITHOUT_NUL)],
        Annotated[str, StringConstraints(max_length=512, pattern=WITHOUT_NUL)],
    ],
    Field(max_length=16),
]
SUPPORTED_TYPES = (SFT, FULL)
SUPPORTED = "training_type must be sft (method.type: supervised) or full; nothing else can be trained here yet."


class Supervised(BaseModel):
    hyperparameters: HyperparametersIn | None = None


class Method(BaseModel):
    type: str = "supervised"
    supervised: Supervised | None = None

    @field_validator("type")
    @classmethod
    def is_supervised(cls, value: str) -> str:
        if value not in ("supervised", "sft"):
            raise ValueError(SUPPORTED)
        return value


class JobCreate(BaseModel):
    """POST /fine_tuning/jobs. Unknown top-level fields are ignored, unknown hyperparameters refused."""

    model: str = Field(min_length=1, max_length=300)
    training_file: str = Field(min_length=1, max_length=100)
    validation_file: str | None = Field(None, max_length=100)
    training_type: str = Field("sft", description="sft: LoRA; full: all weights, where the catalog permits it")
    hyperparameters: HyperparametersIn | None = None
    method: Method | None = None
    suffix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None
    gpu_preference: str | None = None

    @field_validator("training_type")
    @classmethod
    def is_supported(cls, value: str) -> str:
        if value not in SUPPORTED_TYPES:
            raise ValueError(SUPPORTED)
        return value

    @model_validator(mode="before")
    @classmethod
    def without_inner_training_type(cls, value: Any) -> Any:
        """Some clients name the training type among the hyperparameters."""
        inner = value.get("hyperparameters") if isinstance(value, dict) else None
        if not isinstance(inner, dict) or inner.get("training_type") not in SUPPORTED_TYPES:
            return value
        others = {k: v for k, v in inner.items() if k != "training_type"}
        return {"training_type": inner["training_type"], **value, "hyperparameters": others}

    @field_validator("hyperparameters", mode="before")
    @classmethod
    def names_no_other_training_type(cls, value: Any) -> Any:
        if isinstance(value, dict) and "training_type" in value:
            raise ValueError(SUPPORTED)
        return value

    @property
    def asked(self) -> HyperparametersIn:
        inner = self.method.supervised.hyperparameters if self.method and self.method.supervised else None
        return inner or self.hyperparameters or HyperparametersIn()


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class JobOut(BaseModel):
    """OpenAI's job object, and `training_type`."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    estimated_finish: int | None
    status: str
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    training_type: str
    trained_tokens: int | None
    seed: int
    suffix: str | None
    metadata: dict[str, str]
    integrations: list[Any]
    gpu: str
    error: JobError | None

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        same = (
            "id",
            "status",
            "model",
            "fine_tuned_model",
            "training_file",
            "validation_file",
            "result_files",
        )
        return cls(
            object="fine_tuning.job",
            **{
                name: getattr(job, name)
                for name in (*same, "hyperparameters", "training_type", "seed", "suffix", "gpu")
            },
            created_at=int(job.created_at),
            updated_at=int(job.updated_at),
            started_at=_whole(job.started_at),
            finished_at=_whole(job.finished_at),
            estimated_finish=None,
            organization_id=job.org_id,
            method={"type": "supervised", "supervised": {"hyperparameters": job.hyperparameters}},
            trained_tokens=job.trained_tokens or None,
            metadata=job.job_metadata,
            integrations=job.integrations,
            error=JobError(**job.error) if job.error else None,
        )


class EventOut(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]
    seq: int
    event_type: str

    @classmethod
    def of(cls, event: JobEvent) -> "EventOut":
        same = ("id", "level", "message", "type", "data", "seq", "event_type")
        return cls(
            object="fine_tuning.job.event",
            created_at=int(event.created_at),
            **{name: getattr(event, name) for name in same},
        )


class CheckpointOut(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str) -> "CheckpointOut":
        return cls(
            id=checkpoint.id,
            object="fine_tuning.job.checkpoint",
            created_at=int(checkpoint.created_at),
            fine_tuned_model_checkpoint=f"{name}:ckpt-step-{checkpoint.step}",
            fine_tuning_job_id=checkpoint.job_id,
            step_number=checkpoint.step,
            metrics=checkpoint.metrics,
        )


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
