"""Placement: what it decides is always possible, and never at the cost of somebody busy."""

from hypothesis import given
from hypothesis import strategies as st

from app.catalog.spec import GpuChoice
from app.engines.placement import Refuse, Reuse, Running, Start, Wait, evictable, place

GPUS = st.builds(GpuChoice, type=st.sampled_from(["A100", "CPU"]), count=st.integers(1, 4))
RUNNING = st.builds(Running, st.sampled_from("abc"), GPUS, in_flight=st.integers(0, 2), idle_seconds=st.floats(0, 100))


@given(st.sampled_from("abc"), GPUS, st.lists(RUNNING, max_size=6), st.integers(0, 4), st.integers(0, 4))
def test_every_decision_can_be_carried_out(
    model: str, gpu: GpuChoice, running: list[Running], free: int, others: int
) -> None:
    """`others`: devices that jobs hold."""
    total = free + others + sum(engine.gpu.count for engine in running if engine.gpu.type == gpu.type)
    match place(model, gpu, running, free=free, total=total):
        case Reuse(index):
            assert (running[index].model_id, running[index].gpu) == (model, gpu)
        case Start(evict):
            evicted = [running[index] for index in evict]
            assert len(set(evict)) == len(evict)
            assert all(engine.in_flight == 0 and engine.gpu.type == gpu.type for engine in evicted)
            assert free + sum(engine.gpu.count for engine in evicted) >= gpu.count
            # Not one more than is needed, and nobody who was used later than one who stays.
            assert not evict or free + sum(engine.gpu.count for engine in evicted[:-1]) < gpu.count
            stay = [e for i, e in enumerate(running) if i not in evict and not e.in_flight and e.gpu.type == gpu.type]
            assert all(s.idle_seconds <= e.idle_seconds for s in stay for e in evicted)
        case Wait():
            idle = [engine for engine in running if engine.in_flight == 0 and engine.gpu.type == gpu.type]
            assert free + sum(engine.gpu.count for engine in idle) < gpu.count <= total
        case Refuse():
            assert gpu.count > total


@given(GPUS, st.lists(RUNNING, max_size=6), st.integers(-4, 0))
def test_nobody_goes_when_nothing_is_missing(gpu: GpuChoice, running: list[Running], missing: int) -> None:
    assert evictable(gpu, running, missing=missing) == ()
