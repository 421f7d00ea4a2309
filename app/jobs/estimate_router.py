"""POST /fine_tuning/estimate: what a job would take; nothing is charged, no GPU is used."""

from fastapi import APIRouter
from pydantic import BaseModel

from app.billing.ledger import balance_micros
from app.billing.prices import cents
from app.catalog.resolve import asked_choices
from app.deps import SessionDep
from app.errors import BadRequest
from app.files.row_statistics import RowLengths
from app.jobs import estimate
from app.jobs.estimate import GIB, GpuEstimate
from app.jobs.file_warnings import warnings_of
from app.jobs.forecast import foresee
from app.jobs.router import CatalogDep
from app.jobs.schemas import JobCreate
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
    warnings: list[str]
    gpus: list[GpuEstimateOut]


@router.post("/estimate")
async def estimate_job(body: JobCreate, key: AskingKey, session: SessionDep, catalog: CatalogDep) -> EstimateOut:
    """Takes what the creation of a job takes; what that refuses for its model, file or hyperparameters, this does.

    Told are the GPUs of the catalog, and those that are asked for.
    """
    spec, file, numbers = await foresee(session, catalog, key, body)
    if file.row_lengths is None:
        raise BadRequest("The file was uploaded before row lengths were kept; upload it again.", param="training_file")
    lengths, n_rows = RowLengths.of(file.row_lengths), file.n_rows or 1
    tokens = estimate.trained_tokens(lengths, n_rows, numbers)
    longest = max(lengths.rows_of)
    balance = await balance_micros(session, key.org_id)
    is_automatic = body.asked.gradient_checkpointing == "auto"
    found = [
        estimate.on_gpu(catalog, spec, gpu, resolved, n_tokens=tokens, longest_row=longest)
        for gpu in dict.fromkeys([*spec.choices, *asked_choices(spec, body.gpu_preference)])
        for resolved in [estimate.spare_memory(catalog, spec, gpu, numbers, longest) if is_automatic else numbers]
    ]
    return EstimateOut(
        model=spec.id,
        n_rows=n_rows,
        rows_cut=lengths.n_cut(numbers["max_seq_length"]),
        trained_tokens=tokens,
        steps=estimate.n_steps(n_rows, numbers),
        balance_cents=cents(balance),
        warnings=warnings_of(file, numbers["max_seq_length"]),
        gpus=[GpuEstimateOut.of(one, balance) for one in found],
    )
