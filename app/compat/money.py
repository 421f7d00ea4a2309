"""What the synth-ai clients ask before they spend: the price of GPU time, and the balance."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.billing.ledger import balance_micros
from app.billing.prices import cents
from app.billing.router import get_balance
from app.deps import SessionDep
from app.errors import BadRequest
from app.jobs.router import CatalogDep
from app.orgs.auth import CurrentOrg

router = APIRouter(include_in_schema=False)

router.add_api_route("/balance/autumn-normalized", get_balance)


class Preflight(BaseModel):
    job_type: str = "sft"
    gpu_type: str = Field(max_length=100)
    estimated_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    container_count: Annotated[int, Field(ge=1, le=10_000)] = 1


class PreflightOut(Preflight):
    estimated_cost_cents: int
    estimated_cost_dollars: float
    balance_cents: int
    is_covered_by_balance: bool


@router.post("/pricing/preflight")
async def price_gpu_time(body: Preflight, org_id: CurrentOrg, session: SessionDep, catalog: CatalogDep) -> PreflightOut:
    gpu = catalog.gpus.get(body.gpu_type.partition(":")[0].upper())
    if gpu is None:
        known = ", ".join(catalog.gpus)
        raise BadRequest(f"There is no price for the GPU '{body.gpu_type[:50]}'; known are {known}.", param="gpu_type")
    micros = round(gpu.micros_per_hour * body.estimated_seconds / 3600 * body.container_count)
    balance = await balance_micros(session, org_id)
    return PreflightOut(
        **body.model_dump(),
        estimated_cost_cents=cents(micros),
        estimated_cost_dollars=cents(micros) / 100,
        balance_cents=cents(balance),
        is_covered_by_balance=micros <= balance,
    )
