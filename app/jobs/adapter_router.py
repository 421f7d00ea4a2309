"""GET /fine_tuning/jobs/{id}/adapter: what was trained, to take home."""

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from app.catalog.names import fine_tuned_name
from app.deps import SessionDep
from app.files.router import get_storage
from app.files.zipped import zipped
from app.jobs.adapter_folder import adapter_members, find_adapter
from app.jobs.router import CatalogDep, JobDep
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])


@router.get(
    "/{job_id}/adapter",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_adapter(
    request: Request,
    job: JobDep,
    key: AskingKey,
    session: SessionDep,
    catalog: CatalogDep,
    checkpoint: Annotated[str | None, Query(max_length=100, description="a checkpoint's id or step")] = None,
) -> StreamingResponse:
    """A zip of the PEFT folder, as `peft` and vLLM load it."""
    require_model(key, fine_tuned_name(job))
    adapter = await find_adapter(session, job, checkpoint)
    members = await anyio.to_thread.run_sync(adapter_members, get_storage(request), catalog, job.base_model, adapter)
    name = "-".join([job.id, *adapter.folder.split("/")[1:]])
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(zipped(members), media_type="application/zip", headers=headers)
