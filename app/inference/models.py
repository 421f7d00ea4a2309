"""GET /models: what can be asked, the catalog's models and the organisation's own fine-tunes."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.prices import cents
from app.catalog.resolve import UnknownModel, resolve
from app.catalog.spec import Catalog, ModelSpec
from app.deps import SessionDep
from app.devices import leases
from app.devices.inventory import Device, as_choices
from app.jobs.service import mark_model_deleted
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey
from app.orgs.keys import CurrentKey
from app.store.tables import Adapter

router = APIRouter(prefix="/models", tags=["models"])


class ModelOut(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    base_model: str | None
    context_length: int
    supported_gpus: list[str]
    trainable: bool


class GpuOut(BaseModel):
    type: str
    memory_gib: float
    count: int
    free: int
    cents_per_hour: int


class FineTunedOut(BaseModel):
    id: str
    base_model: str
    created_at: int
    job_id: str
    status: str

    @classmethod
    def of(cls, adapter: Adapter) -> "FineTunedOut":
        return cls(
            id=adapter.name,
            base_model=adapter.base_model,
            created_at=int(adapter.created_at),
            job_id=adapter.job_id,
            status="ready",
        )


class ModelsOut(BaseModel):
    object: Literal["list"]
    data: list[ModelOut]
    gpus: list[GpuOut]
    fine_tuned_models: list[FineTunedOut]
    available_models: list[str]
    organization_id: str
    customer_id: str


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"]
    deleted: Literal[True]


@router.get("")
async def list_models(request: Request, key: AskingKey, session: SessionDep) -> ModelsOut:
    """Those that the key may use."""
    state, org_id = request.app.state, key.org_id
    adapters = await _list_adapters(session, key)
    specs = [spec for spec in state.catalog.models if key.may_use(spec.id)]
    base = [base_model(spec, int(state.catalog_loaded_at)) for spec in specs]
    tuned = [model for adapter in adapters if (model := fine_tuned(state.catalog, adapter))]
    return ModelsOut(
        object="list",
        data=base + tuned,
        gpus=gpus(state.catalog, state.devices, await leases.held(session)),
        fine_tuned_models=[FineTunedOut.of(adapter) for adapter in adapters],
        available_models=[model.id for model in base + tuned],
        organization_id=org_id,
        customer_id=org_id,
    )


@router.get("/{model_id:path}")
async def get_model(request: Request, model_id: str, key: AskingKey, session: SessionDep) -> ModelOut:
    require_model(key, model_id)
    state, org_id = request.app.state, key.org_id
    spec, adapter = await resolve(session, state.catalog, org_id, model_id)
    if adapter is None:
        return base_model(spec, int(state.catalog_loaded_at))
    row = await session.get(Adapter, adapter.id)
    model = fine_tuned(state.catalog, row) if row else None
    return model or base_model(spec, int(state.catalog_loaded_at)).model_copy(
        update={"id": model_id, "owned_by": org_id, "base_model": spec.id}
    )


@router.delete("/{model_id:path}")
async def delete_model(request: Request, model_id: str, key: AskingKey, session: SessionDep) -> ModelDeleted:
    """The organisation's own fine-tunes only, while no job continues from them; a base model is a 404 here."""
    require_model(key, model_id)
    _, ref = await resolve(session, request.app.state.catalog, key.org_id, model_id)
    adapter = await session.get(Adapter, ref.id) if ref else None
    if adapter is None:
        raise UnknownModel(model_id)
    await mark_model_deleted(session, adapter)
    request.app.state.admissions.forget()
    return ModelDeleted(id=adapter.name, object="model", deleted=True)


def base_model(spec: ModelSpec, created: int) -> ModelOut:
    return ModelOut(
        id=spec.id,
        object="model",
        created=created,
        owned_by="loam",
        base_model=None,
        context_length=spec.context_length,
        supported_gpus=spec.gpus,
        trainable=spec.trainable,
    )


def fine_tuned(catalog: Catalog, adapter: Adapter) -> ModelOut | None:
    """None when the catalog has dropped its base."""
    spec = catalog.find(adapter.base_model)
    if spec is None:
        return None
    changes = {"id": adapter.name, "owned_by": adapter.org_id, "base_model": spec.id}
    return base_model(spec, int(adapter.created_at)).model_copy(update=changes)


def gpus(catalog: Catalog, devices: Sequence[Device], held: set[str]) -> list[GpuOut]:
    """The GPU types that this host has."""
    return [
        GpuOut(
            type=choice.type,
            memory_gib=catalog.gpus[choice.type].memory_gib,
            count=choice.count,
            free=sum(d.type == choice.type and d.name not in held for d in devices),
            cents_per_hour=cents(catalog.gpus[choice.type].micros_per_hour),
        )
        for choice in as_choices(devices)
        if choice.type in catalog.gpus
    ]


async def list_fine_tuned(session: AsyncSession, key: CurrentKey) -> list[FineTunedOut]:
    """Those that the key may use, newest first."""
    return [FineTunedOut.of(adapter) for adapter in await _list_adapters(session, key)]


async def _list_adapters(session: AsyncSession, key: CurrentKey) -> list[Adapter]:
    rows = select(Adapter).where(Adapter.org_id == key.org_id, Adapter.deleted_at.is_(None))
    return [row for row in await session.scalars(rows.order_by(Adapter.id.desc())) if key.may_use(row.name)]
