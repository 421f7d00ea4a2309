"""Placement under random traffic: no device is used twice, no busy engine goes, and everybody gets an answer."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog.spec import GpuChoice
from tests.engines.world import DEVICES, Waiting, World

PINNED, PINNED_GPU = "p", GpuChoice.parse("A100")
GPUS = st.sampled_from([GpuChoice.parse(text) for text in ("A100", "A100", "A100:2", "A100:3", "CPU", "A100:8")])
REQUESTS = st.tuples(st.sampled_from(["org_1", "org_2", "org_3"]), st.sampled_from("abcd"), GPUS, st.integers(1, 20))
JOBS = st.tuples(st.just(""), st.none(), GPUS, st.integers(1, 60))
FOR_EVER = 10**6
LASTING = st.tuples(st.just(""), st.none(), GPUS, st.just(FOR_EVER))
TICKS = st.integers(1, 40)
LEAVES = st.just("leave")
TRAFFIC = st.lists(st.one_of(REQUESTS, REQUESTS, JOBS, LASTING, TICKS, LEAVES), max_size=40)
LONG_SECONDS = 3000


@settings(max_examples=150, deadline=None)
@given(TRAFFIC, st.booleans())
def test_everybody_gets_an_answer_however_busy_the_engines_are_kept(traffic: list[object], is_busy: bool) -> None:
    """The world itself checks that each decision could be carried out."""
    world = World(PINNED)
    world.ask("org_1", PINNED, PINNED_GPU, 1)
    asked: list[Waiting] = []
    for one in traffic:
        match one:
            case int(seconds):
                pass_time(world, seconds, is_busy=is_busy)
            case "leave":
                for waiting in list(world.queue)[:1]:
                    world.leave(waiting)
            case (str(org_id), str() | None as model_id, GpuChoice() as gpu, int(seconds)):
                asked.append(world.ask(org_id, model_id, gpu, seconds))
    for _ in range(LONG_SECONDS):
        if not unanswered(world, asked):
            break
        pass_time(world, 1, is_busy=is_busy)
    assert unanswered(world, asked) == []
    assert any(engine.model_id == PINNED for engine in world.engines.values())


def unanswered(world: World, asked: list[Waiting]) -> list[Waiting]:
    """Those for whom there is enough beside the pinned model and jobs that last."""
    lasting = [gpu for gpu, end in world.jobs if end > LONG_SECONDS + world.now]
    kept = Counter[str]()
    for gpu in (PINNED_GPU, *lasting):
        kept[gpu.type] += gpu.count
    return [
        one for one in asked if not one.answer and one.gpu.count <= DEVICES.get(one.gpu.type, 0) - kept[one.gpu.type]
    ]


def pass_time(world: World, seconds: int, *, is_busy: bool) -> None:
    """`is_busy`: somebody else keeps each engine that runs as busy as it can be, and it never comes to rest."""
    for _ in range(seconds):
        for engine in list(world.engines.values()) if is_busy else ():
            if engine.gone_at is None and engine.model_id != PINNED:
                world.ask("org_greedy", engine.model_id, engine.gpu, 5)
        world.tick()
