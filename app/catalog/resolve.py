"""From the name a client uses to what will answer: base model, adapter or none, GPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.names import fine_tuned_name, own_name
from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.errors import APIError
from app.store.tables import Adapter, Checkpoint, Job

CHECKPOINT_NAME = re.compile(r"^(?P<adapter>ft:.+):ckpt-step-(?P<step>[0-9]{1,9})$", re.IGNORECASE)


class UnknownModel(APIError):
    status_code, type, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self, name: str, *, param: str | None = "model") -> None:
        super().__init__(
            f"The model '{name[:200]}' does not exist; GET /api/v1/models lists those that do.", param=param
        )


class WrongGpu(APIError):
    status_code, type, code = 400, "invalid_request_error", "gpu_not_supported"


@dataclass(frozen=True)
class AdapterRef:
    """A fine-tune: its immutable engine-side id, and its folder in storage.

    `own_name`: of a full fine-tune, which is no adapter but a model of its own.
    """

    id: str
    job_id: str
    folder: str
    own_name: str | None = None


@dataclass(frozen=True)
class Target:
    """What a request resolves to."""

    model: ModelSpec
    adapter: AdapterRef | None
    gpu: GpuChoice

    @property
    def engine_name(self) -> str:
        """What the engine knows it as."""
        return self.adapter.id if self.adapter else self.model.id


async def resolve(
    session: AsyncSession, catalog: Catalog, org_id: str, name: str
) -> tuple[ModelSpec, AdapterRef | None]:
    """Raises UnknownModel, for another organisation's fine-tune just as for none."""
    if spec := catalog.find(name):
        return spec, None
    if name.lower().startswith("ft:"):
        found = await _find_adapter(session, org_id, name)
        spec = catalog.find(found[0]) if found else None
        if found and spec:
            return spec, found[1]
    raise UnknownModel(name)


async def _find_adapter(session: AsyncSession, org_id: str, name: str) -> tuple[str, AdapterRef] | None:
    """The base model's id, and the published adapter or the checkpoint that `name` tells."""
    if match := CHECKPOINT_NAME.match(name):
        return await _find_checkpoint(session, org_id, match["adapter"], int(match["step"]))
    is_named = (Adapter.org_id == org_id, func.lower(Adapter.name) == name.lower(), Adapter.deleted_at.is_(None))
    rows = select(Adapter, Job).join(Job, Job.id == Adapter.job_id).where(*is_named)
    row = (await session.execute(rows)).one_or_none()
    if row is None:
        return None
    return row.Adapter.base_model, AdapterRef(row.Adapter.id, row.Job.id, "adapter", own_name(row.Job))


async def _find_checkpoint(
    session: AsyncSession, org_id: str, adapter_name: str, step: int
) -> tuple[str, AdapterRef] | None:
    """None for one of a model that was deleted, and under any name but the job's own."""
    rows = (
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .outerjoin(Adapter, Adapter.job_id == Job.id)
        .where(Job.org_id == org_id, Checkpoint.step == step, Adapter.deleted_at.is_(None))
        .where(Job.id == adapter_name.rpartition(":")[2].lower())
    )
    row = (await session.execute(rows)).one_or_none()
    if row is None or fine_tuned_name(row.Job).lower() != adapter_name.lower():
        return None
    folder = f"checkpoints/step-{step}"
    return row.Job.base_model, AdapterRef(row.Checkpoint.id, row.Job.id, folder, own_name(row.Job, step))


def asked_choices(model: ModelSpec, wanted: str | None) -> list[GpuChoice]:
    """None or one, wherever it may be. Raises WrongGpu for one that the model does not run on."""
    wanted = (wanted or "").strip()
    return [_parse_wanted(model, wanted, {"supported_gpus": model.gpus})] if wanted else []


def choose_gpu(model: ModelSpec, wanted: str | None, present: Sequence[GpuChoice], *, fallback: bool) -> GpuChoice:
    """The GPU that shall serve `model`: the wanted one, or the first of the model's that this host has.

    Nothing and blanks ask for none. Raises WrongGpu, with what is supported and what is here.
    """
    help_ = {"supported_gpus": model.gpus, "available_gpus": [str(choice) for choice in present]}
    wanted = (wanted or "").strip()
    choices = [_parse_wanted(model, wanted, help_)] if wanted else model.choices
    here = {choice.type: choice.count for choice in present}
    fit = [choice for choice in choices if here.get(choice.type, 0) >= choice.count]
    if not fit and fallback:
        fit = [choice for choice in model.choices if here.get(choice.type, 0) >= choice.count]
    if not fit:
        missing = str(choices[0]) if wanted else "any of its GPU types"
        raise WrongGpu(
            f"{model.id} cannot run on {missing} here: this host has {_names(present)}.",
            param="gpu_preference",
            troubleshooting=help_,
        )
    return fit[0]


def _parse_wanted(model: ModelSpec, wanted: str, help_: dict[str, list[str]]) -> GpuChoice:
    """`A100` means as many as the model needs; `A100:4` at least that many."""
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9]{0,15})\s*(?::\s*([1-9][0-9]?))?", wanted)
    of_type = [choice for choice in model.choices if match and choice.type == match[1].upper()]
    if not match or not of_type:
        supported = ", ".join(model.gpus)
        reason = f"'{wanted[:50]}' is not a GPU that {model.id} runs on; it runs on {supported}."
    else:
        count = int(match[2]) if match[2] else of_type[0].count
        reason = _wrong_count(model, count, of_type[0])
        if not reason:
            return GpuChoice(of_type[0].type, count)
    raise WrongGpu(reason, param="gpu_preference", troubleshooting=help_)


def _wrong_count(model: ModelSpec, count: int, least: GpuChoice) -> str:
    """Why an engine cannot run on that many; empty where it can."""
    if count < least.count:
        return f"{model.id} needs {least}; {least.type}:{count} is not enough."
    if count & (count - 1):  # an engine splits each layer's heads evenly
        return f"A model runs on 1, 2, 4, 8 or 16… GPUs of a type; {least.type}:{count} is none of these."
    return ""


def _names(present: Sequence[GpuChoice]) -> str:
    return ", ".join(f"{choice.count} × {choice.type}" for choice in present) or "no device"
