"""Which adapters engines should have, and which they must not have any more."""

from collections.abc import Collection

from sqlalchemy import select, union
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.names import FULL
from app.catalog.resolve import CHECKPOINT_NAME, AdapterRef
from app.store.tables import Adapter, Checkpoint, Job


async def newest_published(session: AsyncSession, base_model: str, *, limit: int) -> list[AdapterRef]:
    """Full fine-tunes are none: they are models of their own."""
    rows = select(Adapter).join(Job, Job.id == Adapter.job_id).where(Job.training_type != FULL)
    rows = rows.where(Adapter.base_model == base_model, Adapter.deleted_at.is_(None))
    newest = await session.scalars(rows.order_by(Adapter.created_at.desc(), Adapter.id.desc()).limit(limit))
    return [AdapterRef(adapter.id, adapter.job_id, "adapter") for adapter in newest]


async def deleted_among(session: AsyncSession, adapter_ids: Collection[str]) -> set[str]:
    """Those of deleted models, their checkpoints too. One that is on trial has no row yet, and is none of them."""
    deleted = select(Adapter.id).where(Adapter.id.in_(adapter_ids), Adapter.deleted_at.is_not(None))
    checkpoints = (
        select(Checkpoint.id)
        .join(Adapter, Adapter.job_id == Checkpoint.job_id)
        .where(Checkpoint.id.in_(adapter_ids), Adapter.deleted_at.is_not(None))
    )
    return set(await session.scalars(union(deleted, checkpoints)))


async def deleted_models_among(session: AsyncSession, names: Collection[str]) -> set[str]:
    """Those of deleted full fine-tunes, their checkpoints too."""
    model_of = {name: CHECKPOINT_NAME.sub(r"\g<adapter>", name) for name in names}
    rows = select(Adapter.name).where(Adapter.name.in_(model_of.values()), Adapter.deleted_at.is_not(None))
    deleted = set(await session.scalars(rows))
    return {name for name, model in model_of.items() if model in deleted}
