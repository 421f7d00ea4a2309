"""The words of a job's life."""

from enum import StrEnum


class Status(StrEnum):
    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


UNFINISHED = tuple(status for status in Status if not status.is_final)


class Stage(StrEnum):
    """What a job needs next: a worker to train it, then a gateway to publish it."""

    TRAIN = "train"
    PUBLISH = "publish"


class EventType(StrEnum):
    CREATED = "sft.created"
    STARTED = "sft.training.started"
    PROGRESS = "sft.progress"
    VALIDATION = "sft.validation.summary"
    CHECKPOINT = "sft.checkpoint"
    RESTARTED = "sft.job_restarted"
    WARNING = "sft.warning"
    TRAINED = "sft.training.finish"
    PAUSED = "sft.paused"
    RESUMED = "sft.resumed"
    CANCELLED = "sft.cancelled"
    COMPLETED = "workflow.completed"
    FAILED = "workflow.failed"
