"""POST /warmup/{model}, GET /warmup/status/{model}."""

from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.billing.ledger import require_funds
from app.catalog.preference import wanted_gpu
from app.catalog.resolve import choose_gpu, resolve
from app.catalog.spec import GpuChoice, ModelSpec
from app.deps import SessionDep
from app.devices.inventory import as_choices, for_engines
from app.engines.own_model import model_of, target_of
from app.engines.start_times import estimate_seconds
from app.engines.warmup import Warmups
from app.errors import BadRequest
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey

router = APIRouter(prefix="/warmup", tags=["warmup"])


class WarmupOut(BaseModel):
    status: Literal["warming", "already_warming", "already_warmed"]
    model: str
    gpu: str
    timestamp: datetime
    estimated_seconds: float | None


class WarmupStatus(BaseModel):
    status: Literal["cold", "warming", "warmed", "failed"]
    model: str
    gpu: str | None
    elapsed_seconds: float
    estimated_seconds: float | None
    stage: str | None
    progress: float | None
    error: str | None
    log: list[str] | None


def get_warmups(request: Request) -> Warmups:
    warmups: Warmups = request.app.state.warmups
    return warmups


@router.get("/status/{model_id:path}")
async def get_warmup_status(
    request: Request, model_id: str, key: AskingKey, session: SessionDep, gpu: str | None = None
) -> WarmupStatus:
    """Without a GPU type: the best state of all. `progress` is 0 to 1, by what the engine has logged so far;
    `estimated_seconds` is what the last starts of this model on this GPU type took as a whole.
    """
    require_model(key, model_id)
    base, tuned = await resolve(session, request.app.state.catalog, key.org_id, model_id)
    spec = model_of(request.app.state.storage, base, tuned)
    wanted = wanted_gpu(request.scope, {})
    state = get_warmups(request).state(key.org_id, spec, _choose(request, spec, wanted) if wanted else None)
    return WarmupStatus(
        status=state.word,
        model=model_id,
        gpu=state.gpu,
        elapsed_seconds=state.elapsed_seconds,
        estimated_seconds=_estimate(request, spec, state.gpu),
        stage=state.stage,
        progress=state.progress,
        error=state.error,
        log=state.log,
    )


@router.post("/{model_id:path}")
async def warm_up(
    request: Request, model_id: str, key: AskingKey, session: SessionDep, gpu: str | None = None
) -> WarmupOut:
    """Start the model's engine now; answers at once. Needs no body, but a GPU may be asked for in one."""
    wanted = wanted_gpu(request.scope, await _read_body(request))
    require_model(key, model_id)
    base, tuned = await resolve(session, request.app.state.catalog, key.org_id, model_id)
    await require_funds(session, key.org_id)
    await request.app.state.budgets.require(key)
    choice = _choose(request, base, wanted)
    target = target_of(request.app.state.storage, base, tuned, choice)
    status = get_warmups(request).start(target, key)
    return WarmupOut(
        status=status,
        model=model_id,
        gpu=str(choice),
        timestamp=datetime.now(UTC),
        estimated_seconds=_estimate(request, target.model, str(choice)),
    )


async def _read_body(request: Request) -> dict[str, Any]:
    """Empty where there is none. Raises BadRequest."""
    try:
        body = orjson.loads(await request.body() or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not valid JSON.") from error
    if body is not None and not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body or {}


def _estimate(request: Request, spec: ModelSpec, gpu: str | None) -> float | None:
    return estimate_seconds(request.app.state.storage.start_times, spec.id, gpu) if gpu else None


def _choose(request: Request, spec: ModelSpec, wanted: str | None) -> GpuChoice:
    state = request.app.state
    return choose_gpu(spec, wanted, as_choices(for_engines(state.devices)), fallback=state.settings.gpu_fallback)
