"""One job's training: the recipe as a child process, its reports as events, and the lease held beside it."""

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import orjson
import structlog
from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.devices import leases
from app.devices.inventory import Device
from app.files.storage import Storage
from app.ids import new_id
from app.jobs import queue
from app.jobs.events import record
from app.jobs.funding import fund
from app.jobs.metrics import read_metrics
from app.jobs.queue import Lease, LeaseLost
from app.jobs.states import Status
from app.processes import end_group, spawn
from app.settings import Settings
from app.store.session import Store, insert_if_absent
from app.store.tables import Checkpoint, Job
from workers.metrics import Told, tell
from workers.recipe import recipe_command, recipe_environment
from workers.run_lock import Occupied, is_taken, name_holder, open_lock, take_from_holder
from workers.sparing import KILLED, RAN_OUT, halved, told

log = structlog.get_logger()

INTERRUPTED = 75  # the recipe's exit status after a SIGTERM, with a checkpoint written
CANCEL_GRACE_SECONDS = 3.0
LOG_TAIL_CHARS = 2000
OUT_OF_MEMORY = "out_of_memory"
PARAMS = {"invalid_training_file": "training_file"}  # what a recipe's complaint is about


class Run:
    """Created for a claimed job; `finish()` sees it to its end, whichever that is."""

    def __init__(
        self, settings: Settings, store: Store, storage: Storage, job: Job, lease: Lease, devices: Sequence[Device]
    ) -> None:
        self._settings = settings
        self._store = store
        self._job = job
        self._lease = lease
        self._devices = devices
        self._storage = storage
        self._folder = storage.run(job.id)
        self._offset = job.metrics_offset
        self._trained_tokens = job.trained_tokens
        self._error: dict[str, Any] | None = None
        self._counted_at = time.monotonic()
        self._funded_until = 0.0
        self._catalog: Catalog

    async def finish(self, catalog: Catalog, stop: asyncio.Event) -> None:
        """Train until the recipe ends, the lease is lost, or `stop` is set."""
        self._catalog = catalog
        spec = catalog.find(self._job.base_model)
        try:
            if spec is None:
                await self._fail("model_not_found", f"{self._job.base_model} is no longer in the catalog.")
            elif self._is_origin_gone():
                await self._fail("model_not_found", f"{self._job.model}, which the job continues, is no longer there.")
            else:
                await self._train(spec, stop)
        except Occupied:
            await self._defer()
        finally:
            await self._release_devices()

    async def _train(self, spec: ModelSpec, stop: asyncio.Event) -> None:
        child = await self._start(spec)
        log.info("training", job=self._job.id, attempt=self._job.attempts)
        try:
            await self._follow(child, stop)
            await self._conclude(child, stop)
        except LeaseLost:
            await self._let_go(child)
        finally:
            await end_group(child, grace_seconds=self._settings.shutdown_grace_seconds)

    async def _start(self, spec: ModelSpec) -> asyncio.subprocess.Process:
        """The recipe, which from then on is the one that has the run folder's lock. Raises Occupied, LeaseLost."""
        self._folder.mkdir(parents=True, exist_ok=True)
        argv = recipe_command(self._folder, self._devices, simulate=self._settings.simulate)
        orphan = signal.SIGKILL  # so that no recipe of a dead worker writes where another one's has begun
        with open_lock(self._folder) as lock, (self._folder / "log.txt").open("ab") as output:
            await self._occupy(lock)
            self._prepare(spec)
            env, fds = recipe_environment(self._devices), (lock.fileno(),)
            child = await spawn(argv, log=output, env=env, orphan_signal=orphan, pass_fds=fds)
            name_holder(lock, child.pid)
        return child

    async def _occupy(self, lock: IO[bytes]) -> None:
        """We may have slept since the claim: ask each time before anything is changed whether the job is still ours."""
        if not is_taken(lock):
            await self._hold()
            await take_from_holder(lock)
        await self._hold()

    async def _hold(self) -> None:
        async with self._store.begin() as session:
            await queue.heartbeat(session, self._lease, lease_seconds=self._settings.lease_seconds)

    async def _defer(self) -> None:
        log.warning("another recipe writes the run folder; trying again", job=self._job.id)
        async with self._store.begin() as session:
            await queue.defer(session, self._lease, after_seconds=self._settings.lease_seconds / 3)

    async def _fail(self, code: str, message: str) -> None:
        async with self._store.begin() as session:
            await queue.fail(session, self._lease, code=code, message=message)

    def _prepare(self, spec: ModelSpec) -> None:
        """The recipe's config; the same for every attempt, but for the rows at once where memory ran out."""
        config = {
            "job_id": self._job.id,
            "model_path": spec.weights,
            "served_model": spec.weights,
            "training_file": str(self._storage.file(self._job.training_file)),
            "validation_file": self._validation_file(),
            "init_adapter": self._init_adapter(),
            "training_type": self._job.training_type,
            "device": "cpu" if self._devices[0].type == "CPU" or self._settings.simulate else "cuda",
            "seed": self._job.seed,
            "checkpoint_every_steps": self._settings.checkpoint_every_steps,
            "keep_checkpoints": self._settings.keep_checkpoints,
            "wandb": next((each["wandb"] for each in self._job.integrations), None),
            "hyperparameters": self._job.hyperparameters,
        }
        if self._settings.simulate:
            faults = self._settings.simulate_training_faults
            config["simulated"] = {"seconds": self._settings.simulate_training_seconds, "faults": faults}
        part = self._folder / "config.json.part"
        part.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
        part.rename(self._folder / "config.json")

    def _validation_file(self) -> str | None:
        return str(self._storage.file(self._job.validation_file)) if self._job.validation_file else None

    def _init_adapter(self) -> str | None:
        if self._job.init_adapter is None:
            return None
        job_id, _, folder = self._job.init_adapter.partition("/")
        return str(self._storage.adapter(job_id, folder))

    def _is_origin_gone(self) -> bool:
        origin = self._init_adapter()
        return origin is not None and not Path(origin).is_dir()

    async def _follow(self, child: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
        """Report until the child has ended. Raises LeaseLost."""
        ended = asyncio.create_task(child.wait())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not ended.done():
                await asyncio.wait(
                    {ended, stopping}, timeout=self._settings.poll_seconds, return_when="FIRST_COMPLETED"
                )
                if stopping.done():
                    await end_group(child, grace_seconds=self._settings.shutdown_grace_seconds)
                await self._report_if_possible()
            # What was written while the last report was under way; untold, the job must not be concluded.
            await self._report()
        finally:
            stopping.cancel()
            ended.cancel()

    async def _report_if_possible(self) -> None:
        """A database that is away does not end a training: what is not told now is told later."""
        try:
            await self._report()
        except (DBAPIError, OSError) as error:
            log.warning("cannot report just now", job=self._job.id, error=repr(error)[:300])

    async def _report(self) -> None:
        """One transaction: the new events, how far they reach in the file, the GPU time, and the lease."""
        records, offset = read_metrics(self._folder / "metrics.jsonl", self._offset)
        now = time.monotonic()
        gpu_seconds = (now - self._counted_at) * GpuChoice.parse(self._job.gpu).count
        trained = max([self._trained_tokens, *(r.get("trained_tokens", 0) for r in records)])
        async with self._store.begin() as session:
            await queue.heartbeat(
                session,
                self._lease,
                lease_seconds=self._settings.lease_seconds,
                metrics_offset=offset,
                trained_tokens=trained,
            )
            await queue.use_gpus(session, self._lease, gpu_seconds)
            await self._stay_funded(session, now)
            await leases.extend(session, self._lease.holder, seconds=self._settings.lease_seconds)
            for event in [event for r in records for event in tell(r, attempt=self._job.attempts)]:
                await self._tell(session, event)
            await self._keep_checkpoints(session, records)
        self._offset, self._trained_tokens, self._counted_at = offset, trained, now
        self._error = next((r for r in reversed(records) if r["kind"] == "error"), self._error)

    async def _stay_funded(self, session: AsyncSession, now: float) -> None:
        """The balance need not be looked at with each report."""
        if now >= self._funded_until:
            job = await session.get_one(Job, self._job.id, populate_existing=True)
            await fund(session, self._catalog, job, lease_seconds=self._settings.lease_seconds)
            self._funded_until = now + self._settings.lease_seconds / 2

    async def _tell(self, session: AsyncSession, event: Told) -> None:
        await record(session, self._job.id, event.event_type, event.message, level=event.level, data=event.data)

    async def _keep_checkpoints(self, session: AsyncSession, records: Sequence[dict[str, Any]]) -> None:
        """A row for each new checkpoint folder; the rows of folders that the recipe has pruned go."""
        new = [r for r in records if r["kind"] == "checkpoint"]
        if not new:
            return
        for r in new:
            row = {"id": new_id("ftckpt"), "job_id": self._job.id, "step": r["step"], "created_at": time.time()}
            metrics = {"step": r["step"], "train_loss": r["train_loss"]}
            await session.execute(insert_if_absent(session, Checkpoint).values(**row, metrics=metrics))
        kept = [int(path.name.removeprefix("step-")) for path in (self._folder / "checkpoints").glob("step-*[0-9]")]
        gone = delete(Checkpoint).where(Checkpoint.job_id == self._job.id, Checkpoint.step.not_in(kept))
        await session.execute(gone)

    async def _conclude(self, child: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
        """The recipe has ended: say how. Raises LeaseLost."""
        async with self._store.begin() as session:
            if child.returncode == 0:
                await queue.hand_over(session, self._lease)
            elif child.returncode == INTERRUPTED:
                await queue.give_back(session, self._lease)
            elif self._error:
                await self._believe(session, self._error)
            elif stop.is_set():  # and it did not end within the grace
                await queue.give_back(session, self._lease)
            elif self._job.attempts < self._settings.max_attempts:
                log.error("the recipe died", job=self._job.id, status=child.returncode, log=tail(self._folder))
                if child.returncode == -signal.SIGKILL:
                    await self._spare_memory(session, KILLED)
                await queue.retry_later(session, self._lease, after_seconds=1.0)
            else:
                message = f"Training ended unexpectedly {self._job.attempts} times (status {child.returncode})."
                await queue.fail(session, self._lease, code="training_crashed", message=message)

    async def _believe(self, session: AsyncSession, error: dict[str, Any]) -> None:
        """What the recipe says of its end, is its end; but memory may suffice for fewer rows at once."""
        code = error["code"]
        if code == OUT_OF_MEMORY and await self._spare_memory(session, RAN_OUT):
            await queue.retry_later(session, self._lease, after_seconds=1.0)
        else:
            await queue.fail(session, self._lease, code=code, message=error["message"], param=PARAMS.get(code))

    async def _spare_memory(self, session: AsyncSession, why: str) -> bool:
        """False where that cannot be, or no attempt is left for it."""
        sparing = halved(self._job.hyperparameters, attempt=self._job.attempts)
        if sparing is None or self._job.attempts >= self._settings.max_attempts:
            return False
        seconds = self._settings.lease_seconds
        await queue.heartbeat(session, self._lease, lease_seconds=seconds, hyperparameters=sparing)
        await self._tell(session, told(sparing, why))
        return True

    async def _let_go(self, child: asyncio.subprocess.Process) -> None:
        """The job is over, paused or somebody else's: a paused one shall still write its checkpoint."""
        async with self._store.read() as session:
            job = await session.get_one(Job, self._job.id)
        log.info("job let go", job=job.id, status=job.status)
        paused = job.status == Status.PAUSED
        grace = self._settings.shutdown_grace_seconds if paused else CANCEL_GRACE_SECONDS
        await end_group(child, grace_seconds=grace)
        await self._settle_checkpoints()

    async def _settle_checkpoints(self) -> None:
        """What the recipe wrote and pruned at last: all that is listed can be chatted with, and nothing else is."""
        records, _ = read_metrics(self._folder / "metrics.jsonl", self._offset)
        async with self._store.begin() as session:
            if await queue.was_the_last(session, self._lease):
                await self._keep_checkpoints(session, records)

    async def _release_devices(self) -> None:
        async with self._store.begin() as session:
            await leases.release(session, self._lease.holder)


def tail(folder: Path) -> str:
    """The end of a run's log, for our own log: its lines may show paths, so clients never see them."""
    with (folder / "log.txt").open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - LOG_TAIL_CHARS))
        return file.read().decode("utf-8", "replace")
