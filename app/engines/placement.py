"""Who gets which engine, and what must happen first. Pure: it decides, the pool acts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from app.catalog.spec import GpuChoice


@dataclass(frozen=True)
class Running:
    """An engine as placement sees it. One that starts is as good as busy; one that stops frees its devices soon."""

    id: str
    model_id: str
    gpu: GpuChoice
    in_flight: int = 0
    idle_seconds: float = 0.0
    ready_seconds: float = inf
    is_starting: bool = False
    is_stopping: bool = False
    is_draining: bool = False
    is_pinned: bool = False


@dataclass(frozen=True)
class Wanted:
    """What somebody waits for: an engine of a model or, where there is no model, the devices alone, for another
    process of this host.
    """

    model_id: str | None
    gpu: GpuChoice
    waited_seconds: float = 0.0


@dataclass(frozen=True)
class Rules:
    """`settle_seconds`: an engine that has just become ready is not evicted before somebody could use it.
    `drain_after_seconds`: whoever has waited for as long may make a busy engine drain that has run for as long.
    """

    settle_seconds: float
    drain_after_seconds: float


@dataclass(frozen=True)
class Reuse:
    engine_id: str


@dataclass(frozen=True)
class Start:
    """The devices are free: start an engine on them, or leave them to the other process."""


@dataclass(frozen=True)
class MakeRoom:
    """Stop idle engines, and place nothing more on busy ones; their devices are then this one's.

    `lacks`: as in `Wait`; those that are free already.
    """

    evict: tuple[str, ...]
    drain: tuple[str, ...] = ()
    lacks: int = 0


@dataclass(frozen=True)
class Wait:
    """Devices are on their way, or all are busy; something will become free.

    `lacks`: how many devices must become free that no engine here can give.
    """

    lacks: int = 0


@dataclass(frozen=True)
class Refuse:
    reason: str


Decision = Reuse | Start | MakeRoom | Wait | Refuse


def plan(
    waiting: Sequence[Wanted],
    running: Sequence[Running],
    *,
    free: Mapping[str, int],
    elsewhere: Mapping[str, int],
    total: Mapping[str, int],
    rules: Rules,
) -> list[Decision]:
    """A decision for each of those who wait, in their order: what one has been promised, no later one gets.

    `free` and `total` count the devices of each GPU type, `elsewhere` those that engines of other gateways have.
    """
    devices = _Devices(running, free, elsewhere, total, rules)
    return [devices.decide(wanted) for wanted in waiting]


def may_grow(
    replicas: Sequence[Running], waiting: Sequence[Wanted], *, gpu: GpuChoice, free: int, crowded_at: int
) -> bool:
    """Whether one more replica shall start: all are crowded, and nobody else wants the devices that it takes."""
    is_wanted = any(wanted.gpu.type == gpu.type for wanted in waiting)
    return free >= gpu.count and not is_wanted and are_crowded(replicas, crowded_at=crowded_at)


def are_crowded(replicas: Sequence[Running], *, crowded_at: int) -> bool:
    """Whether those that run are too few."""
    return bool(replicas) and not any(each.is_starting or each.in_flight < crowded_at for each in replicas)


class _Devices:
    """What is left to promise, while a plan is made."""

    def __init__(
        self,
        running: Sequence[Running],
        free: Mapping[str, int],
        elsewhere: Mapping[str, int],
        total: Mapping[str, int],
        rules: Rules,
    ) -> None:
        self._running = {engine.id: engine for engine in running if not engine.is_stopping}
        self._elsewhere = elsewhere
        self._total = total
        self._rules = rules
        self._free = Counter(free)
        self._coming = _by_type(engine for engine in running if engine.is_stopping)
        # Whatever may become free; the rest is what jobs and pinned engines have.
        self._obtainable = self._free + Counter(elsewhere) + _by_type(e for e in running if not e.is_pinned)
        self._spoken_for: set[str] = set()
        self._provided: set[tuple[str, GpuChoice]] = set()

    def decide(self, wanted: Wanted) -> Decision:
        if wanted.model_id is not None:
            if engine := self._find_engine(wanted.model_id, wanted.gpu):
                self._running[engine.id] = replace(engine, in_flight=engine.in_flight + 1)
                return Reuse(engine.id)
            if (wanted.model_id, wanted.gpu) in self._provided:  # the engine that an earlier one gets is theirs too
                return Wait()
        total = self._total.get(wanted.gpu.type, 0)
        if wanted.gpu.count > total:
            return Refuse(f"{wanted.gpu} is more than the {total} that this host has")
        if wanted.gpu.type in self._spoken_for:
            return Wait()
        return self._provide(wanted)

    def _find_engine(self, model_id: str, gpu: GpuChoice) -> Running | None:
        same = [e for e in self._running.values() if e.model_id == model_id and e.gpu == gpu]
        return min(same, key=lambda engine: engine.in_flight, default=None)

    def _provide(self, wanted: Wanted) -> Decision:
        type_, count = wanted.gpu.type, wanted.gpu.count
        if count > self._obtainable[type_]:
            return Wait()  # for the end of jobs, which may take hours: others use meanwhile what is there
        free, coming = self._free[type_], self._coming[type_]
        if count <= free:
            self._promise(wanted)
            return Start()
        missing = count - free - coming
        evict, drain = self._room(wanted, missing)
        lacking = missing - _count((*evict, *drain))
        if lacking > 0:
            self._spoken_for.add(type_)  # a smaller one that comes later must not starve this one
            # What waits elsewhere may get the rest from other gateways, if each gives what it has.
            if wanted.model_id is not None or lacking > self._elsewhere.get(type_, 0):
                return Wait(lacks=count - coming - _count(self._idle(type_)))
        for engine in (*evict, *drain):
            del self._running[engine.id]
            self._coming[type_] += engine.gpu.count
        if lacking <= 0:
            self._promise(wanted)
        return MakeRoom(_ids(evict), _ids(drain), lacks=free) if evict or drain else Wait(lacks=free)

    def _room(self, wanted: Wanted, missing: int) -> tuple[Sequence[Running], Sequence[Running]]:
        """Idle engines and, for who has waited long, busy ones: with the missing devices or, if too few, all."""
        idle = self._idle(wanted.gpu.type)
        if _count(idle) >= missing or wanted.waited_seconds < self._rules.drain_after_seconds:
            return _enough(idle, missing), ()
        drain = _enough(self._drainable(wanted.gpu.type), missing - _count(idle))
        return _enough(idle, missing - _count(drain)), drain

    def _promise(self, wanted: Wanted) -> None:
        """Devices that are free first, then those on their way."""
        type_, count = wanted.gpu.type, wanted.gpu.count
        from_free = min(count, self._free[type_])
        self._free[type_] -= from_free
        self._coming[type_] -= count - from_free
        if wanted.model_id is not None:
            self._provided.add((wanted.model_id, wanted.gpu))

    def _idle(self, gpu_type: str) -> list[Running]:
        """Those that may be evicted, the least recently used first."""
        idle = [e for e in self._candidates(gpu_type) if not e.in_flight and self._is_settled(e)]
        return sorted(idle, key=lambda engine: (not engine.is_draining, -engine.idle_seconds))

    def _drainable(self, gpu_type: str) -> list[Running]:
        """Those that are drained already first, so that no second one is without need; then the least busy."""
        busy = [e for e in self._candidates(gpu_type) if e.in_flight and self._has_had_its_turn(e)]
        return sorted(busy, key=lambda engine: (not engine.is_draining, engine.in_flight, -engine.idle_seconds))

    def _candidates(self, gpu_type: str) -> list[Running]:
        return [e for e in self._running.values() if e.gpu.type == gpu_type and not (e.is_starting or e.is_pinned)]

    def _is_settled(self, engine: Running) -> bool:
        return engine.is_draining or engine.ready_seconds >= self._rules.settle_seconds

    def _has_had_its_turn(self, engine: Running) -> bool:
        return engine.ready_seconds >= self._rules.drain_after_seconds


def _enough(engines: Sequence[Running], missing: int) -> Sequence[Running]:
    """As many of the engines, from the first on, as have the missing devices; all of them where they have too few."""
    chosen: list[Running] = []
    for engine in engines:
        if missing <= 0:
            break
        chosen.append(engine)
        missing -= engine.gpu.count
    return chosen


def _by_type(engines: Iterable[Running]) -> Counter[str]:
    """Their devices."""
    found = Counter[str]()
    for engine in engines:
        found[engine.gpu.type] += engine.gpu.count
    return found


def _count(engines: Sequence[Running]) -> int:
    return sum(engine.gpu.count for engine in engines)


def _ids(engines: Sequence[Running]) -> tuple[str, ...]:
    return tuple(engine.id for engine in engines)
