"""`loam demo`: the whole main job on the demo model, on a server of its own that is stopped at the end."""

import asyncio
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.admin.keys import create_key
from app.billing.ledger import list_entries
from app.catalog.load import load_catalog
from app.orgs.audit import Actor
from app.orgs.service import get_org
from app.processes import end_group, spawn
from app.settings import ROOT, Settings
from app.store.session import Store

MODEL = "loam/demo"
FILES = ROOT / "demo"
START_SECONDS = 60.0
POLL_SECONDS = 0.5


class DemoFailed(Exception):
    """The message says where to look."""


def run_demo(settings: Settings, out: Console) -> int:
    """Exit status 0 when the fine-tuned model gives the trained answers."""
    began = time.monotonic()
    try:
        is_right = asyncio.run(_demo(settings, out))
    except (DemoFailed, httpx.HTTPError) as error:
        out.print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    out.print(f"Done in {time.monotonic() - began:.0f} s. Next: make run")
    return 0 if is_right else 1


async def _demo(settings: Settings, out: Console) -> bool:
    home = settings.data_dir / "demo"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    own = settings.model_copy(update={"data_dir": home, "port": _free_port(), "database_url": None})
    questions = orjson.loads((FILES / "questions.json").read_bytes())
    async with _server(own, out) as client:
        out.rule("1 · serve: the base model")
        before = await _ask_all(client, MODEL, [q["question"] for q in questions], out)
        out.rule("2 · train: LoRA on demo/train.jsonl")
        tuned = await _fine_tune(client, out)
        out.rule("3 · serve: base and fine-tuned side by side")
        after = await _ask_all(client, tuned, [q["question"] for q in questions], out)
        is_right = _show_answers(out, questions, before, after)
        out.rule("4 · meter: the ledger")
        await _show_ledger(own, client, out)
    out.print("The server, its engine and its worker are stopped.")
    return is_right


@asynccontextmanager
async def _server(settings: Settings, out: Console) -> AsyncIterator[httpx.AsyncClient]:
    """A running `loam up`, and a client with a key for it."""
    log_path = settings.data_dir / "server.log"
    argv = [sys.executable, "-m", "app", "up"]
    with log_path.open("wb") as log:
        process = await spawn(argv, log=log, env={**settings.as_environment(), "LOAM_DATA_DIR": str(settings.data_dir)})
    out.print(f"Starting a server on port {settings.port}; its log is {log_path}", markup=False)
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=settings.cold_start_seconds) as client:
            await _until_healthy(client, process, log_path)
            client.headers["Authorization"] = f"Bearer {await _new_key(settings)}"
            yield client
    finally:
        await end_group(process, grace_seconds=settings.shutdown_grace_seconds + settings.engine_stop_seconds)


async def _until_healthy(client: httpx.AsyncClient, process: asyncio.subprocess.Process, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.returncode is None:
        try:
            if (await client.get("/health")).status_code == 200:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    raise DemoFailed(f"the server did not start; its log is {log_path}")


async def _new_key(settings: Settings) -> str:
    store = Store(settings.store_url)
    try:
        async with store.begin() as session:
            org = await get_org(session, "default")
            catalog = load_catalog(settings.catalog)
            return (await create_key(session, Actor.at_terminal(), catalog, org, {"name": "demo"}))[1]
    finally:
        await store.close()


async def _fine_tune(client: httpx.AsyncClient, out: Console) -> str:
    """Upload, train with a progress bar; the name of the fine-tuned model."""
    with (FILES / "train.jsonl").open("rb") as file:
        uploaded = _ok(await client.post("/v1/files", files={"file": ("train.jsonl", file)}))
    hyperparameters = orjson.loads((FILES / "hyperparameters.json").read_bytes())
    body = {"model": MODEL, "training_file": uploaded["id"], "suffix": "demo", "hyperparameters": hyperparameters}
    job = _ok(await client.post("/v1/fine_tuning/jobs", json=body))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        bar = progress.add_task("training", total=None, told="")
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(POLL_SECONDS)
            job = _ok(await client.get(f"/v1/fine_tuning/jobs/{job['id']}"))
            _advance(progress, bar, _ok(await client.get(f"/v1/fine_tuning/jobs/{job['id']}/events?limit=20")))
    if job["status"] != "succeeded":
        raise DemoFailed(f"the job {job['status']}: {job['error']}")
    out.print(f"Trained: {job['fine_tuned_model']}", markup=False)
    name: str = job["fine_tuned_model"]
    return name


def _advance(progress: Progress, bar: TaskID, events: dict[str, Any]) -> None:
    newest = next((e for e in events["data"] if e["event_type"] == "sft.progress"), None)
    if newest:
        data = newest["data"]
        told = f"step {data['step']}/{data['total_steps']}, loss {data['train_loss']:.3f}"
        progress.update(bar, total=data["total_steps"], completed=data["step"], told=told)


async def _ask_all(client: httpx.AsyncClient, model: str, questions: list[str], out: Console) -> list[str]:
    with out.status(f"asking {model} (a cold engine takes about half a minute to start)"):
        return [await _ask(client, model, question) for question in questions]


async def _ask(client: httpx.AsyncClient, model: str, question: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 60}
    answer: str = _ok(await client.post("/v1/chat/completions", json=body))["choices"][0]["message"]["content"]
    return answer.strip()


def _show_answers(out: Console, questions: list[dict[str, str]], before: list[str], after: list[str]) -> bool:
    table = Table("question", "base", "fine-tuned", "", show_lines=True)
    is_right = [answer == q["trained_answer"] for q, answer in zip(questions, after, strict=True)]
    for q, base, tuned, right in zip(questions, before, after, is_right, strict=True):
        table.add_row(q["question"], base, tuned, "[green]✓[/green]" if right else "[red]✗[/red]")
    out.print(table)
    out.print(f"{sum(is_right)} of {len(questions)} are exactly the trained answers.")
    return all(is_right)


async def _show_ledger(settings: Settings, client: httpx.AsyncClient, out: Console) -> None:
    store = Store(settings.store_url)
    async with store.read() as session:
        entries = await list_entries(session, (await get_org(session, "default")).id)
    await store.close()
    table = Table("what", "entries", "prompt", "completion", "trained", "GPU s", "dollars")
    for kind in dict.fromkeys(entry.kind for entry in entries):
        same = [entry for entry in entries if entry.kind == kind]
        tokens = [sum(getattr(e, f"{name}_tokens") for e in same) for name in ("prompt", "completion", "trained")]
        seconds, micros = sum(e.gpu_seconds for e in same), sum(e.amount_micros for e in same)
        table.add_row(kind, str(len(same)), *map(str, tokens), f"{seconds:.1f}", f"{micros / 1e6:+,.6f}")
    out.print(table)
    balance = _ok(await client.get("/api/v1/balance/current"))
    out.print(f"Balance: ${balance['balance_dollars']:,.2f}", markup=False)


def _ok(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise DemoFailed(f"{response.request.url.path} answered {response.status_code}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
