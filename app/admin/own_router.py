"""/organization/…: an organisation's own keys and audit log, as OpenAI's clients ask for them; for its admin keys.

What OpenAI calls a project is the organisation itself. Keys with the server role are not to be seen here: whoever
could rotate one would run the server.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Select

from app.admin import keys
from app.admin.router import ActorDep, PageDep, audit_page, claim_for_key, key_among, key_page, keys_of
from app.admin.schemas import (
    AdminKeyCreate,
    AuditOut,
    AuditQuery,
    KeyDeleted,
    KeyOut,
    NewKeyOut,
    OwnKeyCreate,
    OwnKeyUpdate,
    ProjectOut,
)
from app.deps import SessionDep
from app.errors import NotFound
from app.jobs.router import CatalogDep
from app.orgs.auth import AskingKey, CurrentOrg
from app.orgs.roles import Role
from app.store.idempotency import IdempotencyHeader
from app.store.paging import ListOut, list_out
from app.store.tables import ApiKey, Org

router = APIRouter(prefix="/organization", tags=["organization"])

PROJECT_ROLES = (Role.MEMBER, Role.INFERENCE, Role.READ)


class UnknownProject(NotFound):
    def __init__(self, project_id: str) -> None:
        super().__init__(
            f"No such project: '{project_id[:100]}'; the only one is the organisation.", param="project_id"
        )


async def get_own_org(org_id: CurrentOrg, session: SessionDep) -> Org:
    return await session.get_one(Org, org_id)


OwnOrg = Annotated[Org, Depends(get_own_org)]


async def get_project(project_id: str, org: OwnOrg) -> Org:
    """By the organisation's id, or as `default`."""
    if project_id not in (org.id, "default"):
        raise UnknownProject(project_id)
    return org


ProjectDep = Annotated[Org, Depends(get_project)]


def live_keys(org: Org, *roles: Role) -> Select[ApiKey]:
    return keys_of(org).where(ApiKey.role.in_(roles), ApiKey.revoked_at.is_(None))


async def get_admin_key(key_id: str, org: OwnOrg, session: SessionDep) -> ApiKey:
    """Raises UnknownKey."""
    return await key_among(session, live_keys(org, Role.ADMIN), key_id)


async def get_project_key(key_id: str, project: ProjectDep, session: SessionDep) -> ApiKey:
    """Raises UnknownKey."""
    return await key_among(session, live_keys(project, *PROJECT_ROLES), key_id)


AdminKeyDep = Annotated[ApiKey, Depends(get_admin_key)]
ProjectKeyDep = Annotated[ApiKey, Depends(get_project_key)]


# 1) the organisation's admin keys
@router.post("/admin_api_keys")
async def create_admin_api_key(
    body: AdminKeyCreate,
    caller: AskingKey,
    org: OwnOrg,
    actor: ActorDep,
    session: SessionDep,
    catalog: CatalogDep,
    idempotency_key: IdempotencyHeader = None,
) -> NewKeyOut:
    """`value` is the key itself, which is never shown again."""
    key, secret = await keys.create_key(session, actor, catalog, org, {**body.columns(), "role": Role.ADMIN})
    await claim_for_key(session, caller, idempotency_key, body, key)
    return NewKeyOut.of(key, org, value=secret)


@router.get("/admin_api_keys")
async def list_admin_api_keys(query: PageDep, org: OwnOrg, session: SessionDep) -> ListOut[KeyOut]:
    return await key_page(session, live_keys(org, Role.ADMIN), org, query)


@router.get("/admin_api_keys/{key_id}")
async def get_admin_api_key(key: AdminKeyDep, org: OwnOrg) -> KeyOut:
    return KeyOut.of(key, org)


@router.delete("/admin_api_keys/{key_id}")
async def delete_admin_api_key(key: AdminKeyDep, actor: ActorDep, session: SessionDep) -> KeyDeleted:
    await keys.revoke_key(session, actor, key)
    return KeyDeleted.of(key)


# 2) its one project, and the keys that work with
@router.get("/projects")
async def list_projects(org: OwnOrg) -> ListOut[ProjectOut]:
    return ListOut[ProjectOut](**list_out([ProjectOut.of(org)], has_more=False))


@router.get("/projects/{project_id}")
async def retrieve_project(project: ProjectDep) -> ProjectOut:
    return ProjectOut.of(project)


@router.post("/projects/{project_id}/api_keys")
async def create_project_api_key(
    body: OwnKeyCreate,
    caller: AskingKey,
    project: ProjectDep,
    actor: ActorDep,
    session: SessionDep,
    catalog: CatalogDep,
    idempotency_key: IdempotencyHeader = None,
) -> NewKeyOut:
    """`value` is the key itself, which is never shown again."""
    key, secret = await keys.create_key(session, actor, catalog, project, body.columns())
    await claim_for_key(session, caller, idempotency_key, body, key)
    return NewKeyOut.of(key, project, value=secret)


@router.get("/projects/{project_id}/api_keys")
async def list_project_api_keys(query: PageDep, project: ProjectDep, session: SessionDep) -> ListOut[KeyOut]:
    return await key_page(session, live_keys(project, *PROJECT_ROLES), project, query)


@router.get("/projects/{project_id}/api_keys/{key_id}")
async def get_project_api_key(key: ProjectKeyDep, project: ProjectDep) -> KeyOut:
    return KeyOut.of(key, project)


@router.post("/projects/{project_id}/api_keys/{key_id}")
async def update_project_api_key(
    body: OwnKeyUpdate,
    key: ProjectKeyDep,
    project: ProjectDep,
    actor: ActorDep,
    session: SessionDep,
    catalog: CatalogDep,
) -> KeyOut:
    """What is left out stays as it is; a limit, a list of models or an end of null is none."""
    await keys.update_key(session, actor, catalog, key, body.columns())
    return KeyOut.of(key, project)


@router.post("/projects/{project_id}/api_keys/{key_id}/rotate")
async def rotate_project_api_key(
    key: ProjectKeyDep, project: ProjectDep, actor: ActorDep, session: SessionDep
) -> NewKeyOut:
    """The same key under another secret, shown this once; the one before is refused at once."""
    return NewKeyOut.of(key, project, value=await keys.rotate_key(session, actor, key))


@router.delete("/projects/{project_id}/api_keys/{key_id}")
async def delete_project_api_key(key: ProjectKeyDep, actor: ActorDep, session: SessionDep) -> KeyDeleted:
    await keys.revoke_key(session, actor, key)
    return KeyDeleted.of(key)


# 3) what was done
@router.get("/audit_logs")
async def list_audit_logs(
    query: Annotated[AuditQuery, Query()], org_id: CurrentOrg, session: SessionDep
) -> ListOut[AuditOut]:
    return await audit_page(session, query, org_id)
