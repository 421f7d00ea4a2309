"""Rows and other small things that tests below the API need, with everything filled in."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import Entry, append
from app.catalog.resolve import AdapterRef, Target
from app.catalog.spec import Catalog, GpuChoice
from app.ids import new_id
from app.jobs.hyperparameters import HyperparametersIn, resolve_hyperparameters
from app.jobs.states import Stage, Status
from app.orgs.keys import CurrentKey, new_secret, of_secret
from app.orgs.roles import Role
from app.store.tables import ApiKey, File, Job, Org

PRICES = {"prompt": "1", "cached_prompt": "0.5", "completion": "2", "training": "4"}
MODEL = {
    "parameters_billions": 1,
    "context_length": 2048,
    "gpus": ["CPU", "A100"],
    "dollars_per_million_tokens": PRICES,
}
CATALOG = Catalog.model_validate(
    {
        "gpus": {
            "CPU": {"memory_gib": 0, "dollars_per_hour": "0.36"},
            "A100": {"memory_gib": 80, "dollars_per_hour": "3.6"},
        },
        "models": [{"id": f"test/{name}", "weights": f"test/{name}", **MODEL} for name in "abc"],
    }
)


def target(model: str = "a", gpu: str = "CPU", adapter: AdapterRef | None = None) -> Target:
    spec = CATALOG.find(f"test/{model}")
    assert spec
    return Target(spec, adapter, GpuChoice.parse(gpu))


async def make_org(session: AsyncSession, name: str | None = None) -> Org:
    org_id = new_id("org")
    org = Org(id=org_id, name=name or org_id)
    session.add(org)
    await session.flush()
    return org


def key_of(org: Org, key_id: str = "key", **limits: Any) -> CurrentKey:
    return CurrentKey(org.id, key_id, Role.MEMBER, **limits)


async def make_key(session: AsyncSession, org: Org, **changes: Any) -> str:
    """The key itself."""
    key = new_secret()
    values = {"id": new_id("key"), "org_id": org.id, "name": "test", "role": Role.MEMBER, **of_secret(key)}
    session.add(ApiKey(**{**values, **changes}))
    await session.flush()
    return key


async def give_credit(session: AsyncSession, org_id: str, micros: int = 10**9) -> None:
    await append(
        session, Entry(org_id=org_id, source=f"credit:{new_id('credit')}", kind="credit", amount_micros=micros)
    )


async def make_file(session: AsyncSession, org: Org, **changes: Any) -> File:
    values: dict[str, Any] = {
        "id": new_id("file"),
        "org_id": org.id,
        "filename": "rows.jsonl",
        "purpose": "fine-tune",
        "size_bytes": 1,
        "sha256": "0" * 64,
        "n_rows": 10,
        "status": "processed",
    }
    file = File(**{**values, **changes})
    session.add(file)
    await session.flush()
    return file


async def make_job(session: AsyncSession, org: Org | None = None, **changes: Any) -> Job:
    """Queued, of ten steps on the CPU, unless changed."""
    org = org or await make_org(session)
    spec = CATALOG.models[0]
    asked = HyperparametersIn(n_epochs=2, batch_size=2)
    values: dict[str, Any] = {
        "id": new_id("ftjob"),
        "org_id": org.id,
        "status": Status.QUEUED,
        "stage": Stage.TRAIN,
        "model": spec.id,
        "base_model": spec.id,
        "gpu": "CPU",
        "training_type": "sft",
        "training_file": new_id("file"),
        "seed": 1,
        "hyperparameters": resolve_hyperparameters(asked, spec, 10, on_cpu=True),
        "job_metadata": {},
        "result_files": [],
        "trained_tokens": 0,
        "gpu_seconds": 0.0,
        "last_seq": 0,
        "metrics_offset": 0,
        "attempts": 0,
        "lease_token": 0,
        "created_at": time.time(),
    }
    job = Job(**{**values, **changes})
    session.add(job)
    await session.flush()
    return job


def chat_rows(n_rows: int = 10) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": f"Answer {n}"}]}
        for n in range(n_rows)
    ]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
