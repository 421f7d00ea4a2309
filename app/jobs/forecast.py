"""What a job would be of, before there is one: the model, the file and the numbers that it would train with."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.resolve import AdapterRef, resolve
from app.catalog.spec import Catalog, ModelSpec
from app.errors import BadRequest
from app.files.service import get_training_file
from app.jobs.hyperparameters import as_made, require_validation_rows, resolve_hyperparameters
from app.jobs.schemas import JobCreate
from app.jobs.training_type import FULL, require_continuable, require_permitted
from app.orgs.allowed_models import require_model
from app.orgs.keys import CurrentKey
from app.store.tables import File, Job


class Forecast(NamedTuple):
    spec: ModelSpec
    file: File
    numbers: dict[str, Any]


async def resolve_trainable(session: AsyncSession, catalog: Catalog, org_id: str, asked: JobCreate) -> ModelSpec:
    """Raises UnknownModel, BadRequest for a model that is not to be trained, or not in this way."""
    return (await _resolve_trainable(session, catalog, org_id, asked))[0]


async def made_with(session: AsyncSession, adapter: AdapterRef) -> dict[str, Any]:
    """The hyperparameters of the job that the adapter is of."""
    return (await session.get_one(Job, adapter.job_id)).hyperparameters


async def _resolve_trainable(
    session: AsyncSession, catalog: Catalog, org_id: str, asked: JobCreate
) -> tuple[ModelSpec, AdapterRef | None]:
    spec, tuned = await resolve(session, catalog, org_id, asked.model)
    if not spec.trainable:
        raise BadRequest(f"{spec.id} can be served, but not fine-tuned.", param="model")
    require_permitted(catalog, spec, asked.training_type)
    require_continuable(tuned, asked.model, asked.training_type)
    return spec, tuned


async def foresee(session: AsyncSession, catalog: Catalog, key: CurrentKey, asked: JobCreate) -> Forecast:
    """Refuses what the creation of the job would refuse for its model, file or hyperparameters."""
    require_model(key, asked.model)
    spec, tuned = await _resolve_trainable(session, catalog, key.org_id, asked)
    file = await get_training_file(session, key.org_id, asked.training_file, param="training_file")
    is_full = asked.training_type == FULL
    numbers = resolve_hyperparameters(asked.asked, spec, file.n_rows or 1, on_cpu=False, is_full=is_full)
    if tuned:
        numbers = as_made(numbers, asked.asked, await made_with(session, tuned))
    require_validation_rows(numbers, file.n_rows or 1, has_file=asked.validation_file is not None)
    return Forecast(spec, file, numbers)
