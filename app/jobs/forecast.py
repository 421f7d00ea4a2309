"""What a job would be of, before there is one: the model, the file and the numbers that it would train with."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.resolve import resolve
from app.catalog.spec import Catalog, ModelSpec
from app.errors import BadRequest
from app.files.service import get_training_file
from app.jobs.hyperparameters import require_validation_rows, resolve_hyperparameters
from app.jobs.schemas import JobCreate
from app.jobs.training_type import FULL, require_continuable, require_permitted
from app.store.tables import File


class Forecast(NamedTuple):
    spec: ModelSpec
    file: File
    numbers: dict[str, Any]


async def resolve_trainable(session: AsyncSession, catalog: Catalog, org_id: str, asked: JobCreate) -> ModelSpec:
    """Raises UnknownModel, BadRequest for a model that is not to be trained, or not in this way."""
    spec, tuned = await resolve(session, catalog, org_id, asked.model)
    if not spec.trainable:
        raise BadRequest(f"{spec.id} can be served, but not fine-tuned.", param="model")
    require_permitted(catalog, spec, asked.training_type)
    require_continuable(tuned, asked.model, asked.training_type)
    return spec


async def foresee(session: AsyncSession, catalog: Catalog, org_id: str, asked: JobCreate) -> Forecast:
    """Refuses what the creation of the job would refuse for its model, file or hyperparameters."""
    spec = await resolve_trainable(session, catalog, org_id, asked)
    file = await get_training_file(session, org_id, asked.training_file, param="training_file")
    is_full = asked.training_type == FULL
    numbers = resolve_hyperparameters(asked.asked, spec, file.n_rows or 1, on_cpu=False, is_full=is_full)
    require_validation_rows(numbers, file.n_rows or 1, has_file=asked.validation_file is not None)
    return Forecast(spec, file, numbers)
