"""What fine-tunes are called, outside and inside of engines."""

import re

from app.store.tables import Job

CHECKPOINT_SUFFIX = re.compile(r":ckpt-step-[0-9]{1,9}$", re.IGNORECASE)


def fine_tuned_name(job: Job) -> str:
    """`ft:<base id>[:<suffix>]:<job id>`"""
    return ":".join(["ft", job.base_model, *([job.suffix] if job.suffix else []), job.id])


FULL = "full"  # the training_type of all weights; there is no adapter then


def own_name(job: Job, step: int | None = None) -> str | None:
    """What the model of a full fine-tune, or of a checkpoint of it, is called inside too; None for an adapter."""
    if job.training_type != FULL:
        return None
    return fine_tuned_name(job) if step is None else f"{fine_tuned_name(job)}:ckpt-step-{step}"


def job_id_in(name: str) -> str:
    """Of a fine-tune's or a checkpoint's name; of another model's, nothing that is a job's id."""
    return CHECKPOINT_SUFFIX.sub("", name).rpartition(":")[2]


def adapter_id(job_id: str) -> str:
    """The engine-side name of a job's adapter: known before it is published, and never used for another."""
    return job_id.replace("ftjob-", "adapter_")
