"""A job that asks for Weights & Biases says so, where there is any."""

import sys
from typing import Any

import pytest
from httpx import AsyncClient

from app.jobs.integrations import Integration, NotInstalled, Wandb, require_installed
from tests.asking import JOBS, create_job, ok, upload

pytestmark = pytest.mark.anyio

WANDB = {"project": "trials", "entity": None, "name": "first of all", "tags": ["a", "b"]}


async def test_a_job_shows_the_integration_that_it_was_asked_with(client: AsyncClient) -> None:
    job = await create_job(client, integrations=[{"type": "wandb", "wandb": WANDB}])
    assert ok(await client.get(f"{JOBS}/{job['id']}"))["integrations"] == [{"type": "wandb", "wandb": WANDB}]
    assert (await create_job(client, integrations=None))["integrations"] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "mlflow", "wandb": WANDB},
        {"type": "wandb"},
        {"type": "wandb", "wandb": {}},
        {"type": "wandb", "wandb": {"project": "a/../b"}},
        {"type": "wandb", "wandb": {"project": "p", "tags": ["\0"]}},
        {"type": "wandb", "wandb": {"project": "p", "tags": ["x" * 65]}},
    ],
)
async def test_an_integration_that_is_none_is_refused(client: AsyncClient, asked: dict[str, Any]) -> None:
    body = {"model": "loam/demo", "training_file": (await upload(client))["id"], "integrations": [asked]}
    response = await client.post(JOBS, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("integrations")


def test_without_its_library_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed([])
    asked = [Integration(type="wandb", wandb=Wandb(project="p"))]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NotInstalled, match=r"loam\[wandb\]"):
        require_installed(asked)
