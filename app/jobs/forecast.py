"""What a job would be of, before there is one: the model, the file and the numbers that it would train with."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.names import FULL
from app.catalog.resolve import AdapterRef, resolve
from app.catalog.spec import Catalog, ModelSpec
from app.errors import BadRequest
from app.files.service import get_training_file
from app.jobs.hyperparameters import as_made, require_validation_rows, resolve_hyperparameters
from app.jobs.schemas import JobCreate
from app.jobs.training_type import require_continuable, require_permitted
from app.orgs.allowed_models import require_model
from app.orgs.keys import CurrentKey
from app.store.tables import File, Job


class Forecast(NamedTuple):
    spec: ModelSpec
    file: File
    numbers: dict[str, Any]


async def resolve_trainable(
    session: AsyncSession, catalog: Catalog, org_id: str, asked: JobCreate
) -> tuple[ModelSpec, AdapterRef | None]:
    """The base, and the fine-tune that is continued. Raises UnknownModel, BadRequest for a model that is not to be
    trained, or not in this way.
    """
    spec, tuned = await resolve(session, catalog, org_id, asked.model)
    if not spec.trainable:
        raise BadRequest(f"{spec.id} can be served, but not fine-tuned.", param="model")
    require_permitted(catalog, spec, asked.training_type)
    require_continuable(tuned, asked.model, asked.training_type)
    return spec, tuned


async def resolve_numbers(
    session: AsyncSession, asked: JobCreate, spec: ModelSpec, tuned: AdapterRef | None, file: File, *, on_cpu: bool
) -> dict[str, Any]:
    """The hyperparameters. Raises BadRequest."""
    n_rows, is_full = file.n_rows or 1, asked.training_type == FULL
    numbers = resolve_hyperparameters(asked.asked, spec, n_rows, on_cpu=on_cpu, is_full=is_full)
    if tuned:
        origin = await session.get_one(Job, tuned.job_id)
        numbers = as_made(numbers, asked.asked, origin.hyperparameters)
    require_validation_rows(numbers, n_rows, has_file=asked.validation_file is not None)
    return numbers


async def foresee(session: AsyncSession, catalog: Catalog, key: CurrentKey, asked: JobCreate) -> Forecast:
    """Refuses what the creation of the job would refuse for its model, file or hyperparameters."""
    require_model(key, asked.model)
    spec, tuned = await resolve_trainable(session, catalog, key.org_id, asked)
    file = await get_training_file(session, key.org_id, asked.training_file, param="training_file")
    return Forecast(spec, file, await resolve_numbers(session, asked, spec, tuned, file, on_cpu=False))
