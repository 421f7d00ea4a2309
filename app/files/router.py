"""The five routes of /files."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from app.deps import SessionDep, SettingsDep, StoreDep
from app.errors import BadRequest
from app.files import service
from app.files.service import FileTooLarge
from app.files.storage import Storage
from app.files.upload import Upload
from app.orgs.auth import CurrentOrg
from app.orgs.quotas import get_quotas
from app.store.idempotency import IdempotencyHeader, is_claimed
from app.store.paging import ListOut, PageQuery, list_out
from app.store.tables import File

router = APIRouter(tags=["files"])

FORM_OVERHEAD_BYTES = 64 * 1024


class FilesQuery(PageQuery):
    limit: int = Field(20, ge=1, le=10_000)
    purpose: str | None = None


class FileOut(BaseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    status_details: str | None
    sha256: str

    @classmethod
    def of(cls, file: File, request: Request) -> "FileOut":
        return cls(
            id=file.id,
            object="file",
            bytes=file.size_bytes,
            created_at=int(file.created_at),
            filename=file.filename,
            purpose=file.purpose,
            status=status_word(file.status, request.scope["path"]),
            status_details=file.status_details,
            sha256=file.sha256,
        )


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


def status_word(status: str, path: str) -> str:
    """Clients of the bare `/api` prefix wait for another word than OpenAI's."""
    is_bare_api = re.match(r"^/api/(?!v1/)", path) is not None
    return "ready" if is_bare_api and status == "processed" else status


def get_storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


@router.post(
    "/files",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "purpose": {"type": "string", "default": "fine-tune"},
                        },
                    }
                }
            },
        }
    },
)
async def upload_file(
    request: Request,
    org_id: CurrentOrg,
    store: StoreDep,
    settings: SettingsDep,
    purpose: Annotated[str | None, Query()] = None,
    idempotency_key: IdempotencyHeader = None,
) -> FileOut:
    """Upload one file, in a part named `file`; `purpose` as a form field or in the query."""
    storage = get_storage(request)
    size_bytes = declared_bytes(request)
    if size_bytes > settings.max_file_bytes:
        raise FileTooLarge(settings.max_file_bytes)
    async with store.read() as session:
        quotas = await get_quotas(session, org_id, settings)
        # One that was uploaded before under the same key shall be found, and not refused for what it takes itself.
        is_repeat = await is_claimed(session, org_id, idempotency_key)
        room = None if is_repeat else await service.find_room(session, org_id, quotas)
    if room:
        room.require(size_bytes)
    upload = Upload(request)
    max_bytes = settings.max_file_bytes
    file_id, saved = await service.save_bytes(storage, upload.chunks(), max_bytes=max_bytes, room=room)
    try:
        chosen = check_purpose(upload.fields.get("purpose") or purpose or "fine-tune")
        filename = upload.filename or "file"
        file = await service.describe(storage, org_id, file_id, saved, filename=filename, purpose=chosen)
    except BaseException:
        storage.delete_file(file_id)
        raise
    kept = await service.add(store, storage, file, idempotency_key, quotas)
    return FileOut.of(kept, request)


def declared_bytes(request: Request) -> int:
    """How large the file is at the least; 0 where the client does not say."""
    declared = request.headers.get("content-length", "0")
    return max(0, int(declared) - FORM_OVERHEAD_BYTES) if declared.isdecimal() else 0


def check_purpose(purpose: str) -> str:
    if purpose not in service.PURPOSES:
        raise BadRequest(f"purpose must be one of {', '.join(sorted(service.PURPOSES))}.", param="purpose")
    return purpose


@router.get("/files")
async def list_files(
    request: Request, query: Annotated[FilesQuery, Query()], org_id: CurrentOrg, session: SessionDep
) -> ListOut[FileOut]:
    page = await service.list_files(session, org_id, query, query.purpose)
    data = [FileOut.of(file, request) for file in page.rows]
    return ListOut[FileOut](**list_out(data, has_more=page.has_more))


@router.get("/files/{file_id}")
async def get_file(request: Request, file_id: str, org_id: CurrentOrg, session: SessionDep) -> FileOut:
    return FileOut.of(await service.get_file(session, org_id, file_id), request)


@router.get("/files/{file_id}/content", response_class=FileResponse)
async def get_file_content(request: Request, file_id: str, org_id: CurrentOrg, session: SessionDep) -> FileResponse:
    """The bytes as they were sent; `Range` is honoured."""
    file = await service.get_file(session, org_id, file_id)
    path = get_storage(request).file(file.id)
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/files/{file_id}")
async def delete_file(request: Request, file_id: str, org_id: CurrentOrg, store: StoreDep) -> FileDeleted:
    """Refused while a job that is not over needs the file."""
    async with store.begin() as session:
        if not await service.mark_deleted(session, org_id, file_id):
            raise BadRequest(
                "A fine-tuning job that is not finished needs this file; cancel it first.", param="file_id"
            )
    get_storage(request).delete_file(file_id)
    return FileDeleted(id=file_id, object="file", deleted=True)
