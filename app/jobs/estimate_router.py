"""POST /fine_tuning/estimate: what a job would take; nothing is charged, no GPU is used."""

from fastapi import APIRouter
from pydantic import BaseModel

from app.billing.ledger import balance_micros
from app.billing.prices import cents
from app.catalog.resolve import resolve
from app.deps import SessionDep
from app.errors import BadRequest
from app.files.row_statistics import RowLengths
from app.files.service import get_training_file
from app.jobs import estimate
from app.jobs.estimate import GIB, GpuEstimate
from app.jobs.hyperparameters import resolve_hyperparameters
from app.jobs.router import CatalogDep
from app.jobs.schemas import JobCreate
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey

router = APIRouter(prefix="/fine_tuning", tags=["fine-tuning"])


class GpuEstimateOut(BaseModel):
    gpu: str
    memory_gib: float
    fits: bool
    estimated_seconds: float | None
    price_cents: int | None
    is_covered_by_balance: bool | None

    @classmethod
    def of(cls, found: GpuEstimate, balance: int) -> "GpuEstimateOut":
        price = found.price_micros
        return cls(
            gpu=str(found.gpu),
            memory_gib=round(found.memory_bytes / GIB, 2),
            fits=found.fits,
            estimated_seconds=None if found.seconds is None else round(found.seconds, 1),
            price_cents=None if price is None else cents(price),
            is_covered_by_balance=None if price is None else price <= balance,
        )


class EstimateOut(BaseModel):
    """Tokens are estimated from the length of the rows; steps are exact."""

    model: str
    n_rows: int
    rows_cut: int
    trained_tokens: int
    steps: int
    balance_cents: int
    gpus: list[GpuEstimateOut]


@router.post("/estimate")
async def estimate_job(body: JobCreate, key: AskingKey, session: SessionDep, catalog: CatalogDep) -> EstimateOut:
    """Takes what the creation of a job takes; what that refuses for its model, file or hyperparameters, this does."""
    require_model(key, body.model)
    org_id = key.org_id
    spec, _ = await resolve(session, catalog, org_id, body.model)
    if not spec.trainable:
        raise BadRequest(f"{spec.id} can be served, but not fine-tuned.", param="model")
    file = await get_training_file(session, org_id, body.training_file, param="training_file")
    if file.row_lengths is None:
        raise BadRequest("The file was uploaded before row lengths were kept; upload it again.", param="training_file")
    lengths, n_rows = RowLengths.of(file.row_lengths), file.n_rows or 1
    numbers = resolve_hyperparameters(body.asked, spec, n_rows, on_cpu=False)
    tokens = estimate.trained_tokens(lengths, n_rows, numbers)
    needed = estimate.memory_bytes(spec, numbers, max(lengths.rows_of))
    balance = await balance_micros(session, org_id)
    found = [estimate.on_gpu(catalog, spec, gpu, tokens, needed) for gpu in spec.choices]
    return EstimateOut(
        model=spec.id,
        n_rows=n_rows,
        rows_cut=lengths.n_cut(numbers["max_seq_length"]),
        trained_tokens=tokens,
        steps=estimate.n_steps(n_rows, numbers),
        balance_cents=cents(balance),
        gpus=[GpuEstimateOut.of(one, balance) for one in found],
    )
