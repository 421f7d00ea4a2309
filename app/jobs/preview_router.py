"""POST /fine_tuning/preview: the first rows as tokens, and which of them are learned; nothing is charged."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from app.deps import SettingsDep, StoreDep
from app.files.storage import Storage
from app.jobs.file_warnings import warnings_of
from app.jobs.forecast import foresee
from app.jobs.preview import Previews
from app.jobs.router import CatalogDep
from app.jobs.schemas import JobCreate
from app.orgs.auth import AskingKey

router = APIRouter(prefix="/fine_tuning", tags=["fine-tuning"])


class PreviewCreate(JobCreate):
    n: int = Field(5, ge=1, le=100)


class TokenOut(BaseModel):
    id: int
    text: str
    has_loss: bool


class ExampleOut(BaseModel):
    """One sequence that is trained on; a row is several where the template rewrites earlier answers."""

    n_tokens: int
    n_loss_tokens: int
    is_cut: bool
    tokens: list[TokenOut]


class RowOut(BaseModel):
    """`error`: why training would refuse the row."""

    line: int
    error: str | None
    examples: list[ExampleOut]


class PreviewOut(BaseModel):
    """`tokens` has no more than 20,000 in all; `is_simulated`: a word is a token, since there is no tokenizer."""

    object: Literal["fine_tuning.preview"]
    model: str
    training_file: str
    context_length: int
    max_seq_length: int
    is_simulated: bool
    rows: list[RowOut]
    warnings: list[str]


@router.post("/preview")
async def preview_rows(
    request: Request,
    body: PreviewCreate,
    key: AskingKey,
    store: StoreDep,
    settings: SettingsDep,
    catalog: CatalogDep,
) -> PreviewOut:
    """Takes what the creation of a job takes, and `n`, how many rows."""
    async with store.begin() as session:
        spec, file, numbers = await foresee(session, catalog, key, body)
    storage: Storage = request.app.state.storage
    order = {
        "model_path": spec.weights,
        "training_file": str(storage.file(file.id)),
        "n": body.n,
        "max_seq_length": numbers["max_seq_length"],
        "train_on_inputs": numbers["train_on_inputs"],
        "simulate": settings.simulate,
    }
    return PreviewOut(
        object="fine_tuning.preview",
        model=spec.id,
        training_file=file.id,
        context_length=spec.context_length,
        max_seq_length=numbers["max_seq_length"],
        warnings=warnings_of(file, numbers["max_seq_length"]),
        **await while_asked(request, request.app.state.previews, order),
    )


async def while_asked(request: Request, previews: Previews, order: dict[str, Any]) -> dict[str, Any]:
    """Raises ClientDisconnect when there is nobody left to show it to."""
    shown = asyncio.create_task(previews.show(order))
    gone = asyncio.ensure_future(request.receive())  # the body is read: what comes now is that the client leaves
    try:
        await asyncio.wait({shown, gone}, return_when="FIRST_COMPLETED")
        if not shown.done():
            raise ClientDisconnect
        return shown.result()
    finally:
        gone.cancel()
        shown.cancel()
        await asyncio.gather(shown, gone, return_exceptions=True)
