"""A fine-tune as others take it home: the PEFT folder of an adapter, or the model of a full one; vLLM loads both."""

from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.names import adapter_id, own_name
from app.catalog.resolve import AdapterRef
from app.catalog.spec import Catalog
from app.errors import BadRequest, NotFound
from app.files.storage import Storage
from app.files.zipped import Member
from app.jobs.states import Status
from app.store.tables import Adapter, Checkpoint, Job

CONFIG = "adapter_config.json"
OURS = ("adapter_model.safetensors", "chat_template.jinja")
TRAINER = "trainer.pt"  # what a run goes on from
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


class NoAdapter(NotFound):
    code = "adapter_not_found"


async def find_adapter(session: AsyncSession, job: Job, checkpoint: str | None) -> AdapterRef:
    """The adapter of a job that succeeded, or one of its checkpoints, by id or step. Raises BadRequest, NoAdapter."""
    published = await session.scalar(select(Adapter).where(Adapter.job_id == job.id))
    if published is not None and published.deleted_at is not None:
        raise NoAdapter("The model of this job was deleted.")
    if checkpoint is not None:
        return await _find_checkpoint(session, job, checkpoint)
    if job.status != Status.SUCCEEDED:
        raise BadRequest(f"The job is {job.status}: only a job that has succeeded has an adapter; see its checkpoints.")
    return AdapterRef(adapter_id(job.id), job.id, "adapter", own_name(job))


async def _find_checkpoint(session: AsyncSession, job: Job, asked: str) -> AdapterRef:
    is_step = asked.isascii() and asked.isdigit() and len(asked) < 10
    named = Checkpoint.step == int(asked) if is_step else Checkpoint.id == asked
    found = await session.scalar(select(Checkpoint).where(Checkpoint.job_id == job.id, named))
    if found is None:
        raise NoAdapter("The job has no such checkpoint.", param="checkpoint")
    return AdapterRef(found.id, job.id, f"checkpoints/step-{found.step}", own_name(job, found.step))


def adapter_members(storage: Storage, catalog: Catalog, base_model: str, adapter: AdapterRef) -> list[Member]:
    """Raises NoAdapter when the folder is no longer kept."""
    folder = storage.adapter(adapter.job_id, adapter.folder)
    if adapter.own_name:
        return _whole_model(folder)
    try:
        config: dict[str, Any] = orjson.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise NoAdapter("The adapter is no longer kept.") from error
    spec = catalog.find(base_model)
    home = Path(spec.weights) if spec and Path(spec.weights).is_dir() else None
    # A folder of this host means nothing elsewhere; the hub's name does.
    config["base_model_name_or_path"] = base_model if spec is None or home else spec.weights
    # The template it was taught with goes before its base's.
    files = [*(home / name for name in TOKENIZER if home), *(folder / name for name in OURS)]
    kept = {path.name: path for path in files if path.is_file()}
    return [Member(CONFIG, orjson.dumps(config, option=orjson.OPT_INDENT_2)), *(Member(*item) for item in kept.items())]


def _whole_model(folder: Path) -> list[Member]:
    files = sorted(path for path in folder.glob("*") if path.is_file() and path.name != TRAINER)
    if not files:
        raise NoAdapter("The model is no longer kept.")
    return [Member(path.name, path) for path in files]
