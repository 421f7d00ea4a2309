"""A small world for the placement policy: devices, engines, requests and jobs, in which time passes in whole seconds.

It does what the policy decides, as the pool does, and checks at each step that it could be done.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from app.catalog.spec import GpuChoice
from app.engines.placement import MakeRoom, Refuse, Reuse, Rules, Running, Start, Wanted, plan
from app.engines.waiting import FairQueue

START_SECONDS, STOP_SECONDS = 3, 1
RULES = Rules(settle_seconds=2, drain_after_seconds=10)
DEVICES = {"A100": 4, "CPU": 1}
JOBS = ""


@dataclass(eq=False)
class Waiting:
    """A request for a model or, without one, a job."""

    org_id: str
    model_id: str | None
    gpu: GpuChoice
    seconds: int
    since: int
    answer: str = ""

    @property
    def lane(self) -> str:
        return f"{self.org_id} {self.gpu}"


@dataclass(eq=False)
class SimEngine:
    id: str
    model_id: str
    gpu: GpuChoice
    ready_at: int
    last_used: int
    gone_at: int | None = None
    requests: list[int] = field(default_factory=list)  # when each ends


class World:
    def __init__(self, pinned: str) -> None:
        self.now = 0
        self.pinned = pinned
        self.engines: dict[str, SimEngine] = {}
        self.jobs: list[tuple[GpuChoice, int]] = []  # devices, and when it ends
        self.queue = FairQueue[Waiting]()
        self.draining: set[str] = set()
        self._ids = count()

    def ask(self, org_id: str, model_id: str | None, gpu: GpuChoice, seconds: int) -> Waiting:
        one = Waiting(org_id if model_id else JOBS, model_id, gpu, seconds, self.now)
        engine = self._open_engine(one)
        if engine:
            self._lease(engine, one)
        else:
            self.queue.add(one.lane, one)
            self.place()
        return one

    def leave(self, one: Waiting) -> None:
        self.queue.leave(one.lane, one)
        one.answer = "left"
        self.place()

    def tick(self) -> None:
        self.now += 1
        for engine in list(self.engines.values()):
            if engine.gone_at is not None and engine.gone_at <= self.now:
                del self.engines[engine.id]
            elif any(end <= self.now for end in engine.requests):
                engine.requests = [end for end in engine.requests if end > self.now]
                engine.last_used = self.now
        self.jobs = [(gpu, end) for gpu, end in self.jobs if end > self.now]
        self.place()

    def place(self) -> None:
        while self._place_round():
            pass

    def free(self) -> Counter[str]:
        held = Counter[str]()
        for gpu in [engine.gpu for engine in self.engines.values()] + [gpu for gpu, _ in self.jobs]:
            held[gpu.type] += gpu.count
        return Counter({type_: total - held[type_] for type_, total in DEVICES.items()})

    def _place_round(self) -> bool:
        """Whether anything was done that others may have waited for."""
        waiting = list(self.queue)
        wanted = [Wanted(one.model_id, one.gpu, self.now - one.since) for one in waiting]
        seen = [self._seen(engine) for engine in self.engines.values()]
        decisions = plan(wanted, seen, free=self.free(), elsewhere={}, total=DEVICES, rules=RULES)
        self.draining = {name for d in decisions if isinstance(d, MakeRoom) for name in d.drain}
        changes = [self._do(one, decision) for one, decision in zip(waiting, decisions, strict=True)]
        return any(changes)

    def _do(self, one: Waiting, decision: object) -> bool:
        match decision:
            case Reuse(name):
                assert one.model_id == self.engines[name].model_id
                self.queue.serve(one.lane, one)
                self._lease(self.engines[name], one)
            case Start():
                self._start(one)
            case MakeRoom(evict, drain):
                for name in evict:
                    self._evict(self.engines[name])
                assert all(self.engines[name].requests and not self._is_pinned(name) for name in drain)
                return False
            case Refuse():
                assert one.gpu.count > DEVICES[one.gpu.type]
                self.queue.leave(one.lane, one)
                one.answer = "refused"
            case _:
                return False
        return True

    def _start(self, one: Waiting) -> None:
        self.queue.serve(one.lane, one)
        if one.model_id is None:
            self.jobs.append((one.gpu, self.now + one.seconds))
            one.answer = "served"
        else:
            engine = SimEngine(f"e{next(self._ids)}", one.model_id, one.gpu, self.now + START_SECONDS, self.now)
            self.engines[engine.id] = engine
            self._lease(engine, one)
        assert min(self.free().values()) >= 0, "a device is used by two"

    def _evict(self, engine: SimEngine) -> None:
        assert engine.gone_at is None
        assert not engine.requests, "a busy engine was evicted"
        assert not self._is_pinned(engine.id)
        has_settled = self.now - engine.ready_at >= RULES.settle_seconds
        assert has_settled or engine.id in self.draining, "one that was just warmed was evicted"
        engine.gone_at = self.now + STOP_SECONDS

    def _lease(self, engine: SimEngine, one: Waiting) -> None:
        assert engine.gone_at is None
        engine.requests.append(max(self.now, engine.ready_at) + one.seconds)
        one.answer = "served"

    def _open_engine(self, one: Waiting) -> SimEngine | None:
        """One that needs no queue."""
        for engine in self.engines.values():
            same = (engine.model_id, engine.gpu) == (one.model_id, one.gpu)
            if same and engine.gone_at is None and engine.id not in self.draining:
                return engine
        return None

    def _is_pinned(self, engine_id: str) -> bool:
        return self.engines[engine_id].model_id == self.pinned

    def _seen(self, engine: SimEngine) -> Running:
        return Running(
            engine.id,
            engine.model_id,
            engine.gpu,
            in_flight=len(engine.requests),
            idle_seconds=self.now - engine.last_used,
            ready_seconds=self.now - engine.ready_at,
            is_starting=engine.ready_at > self.now,
            is_stopping=engine.gone_at is not None,
            is_draining=engine.id in self.draining,
            is_pinned=self._is_pinned(engine.id),
        )
