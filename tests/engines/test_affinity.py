"""Which replica a request goes to."""

from dataclasses import dataclass, field

import pytest

from app.engines.affinity import MESSAGES, Affinity, prefixes_of

CONVERSATION = ["Be brief.", "Hello", "Hi!", "What is Loam?"]


@dataclass(eq=False)
class FakeReplica:
    in_flight: int = 0
    is_ready: bool = True
    adapters: set[str] = field(default_factory=set)

    def has_adapter(self, adapter_id: str) -> bool:
        return adapter_id in self.adapters


def body(*texts: str, salt: str = "org_1") -> dict[str, object]:
    return {"cache_salt": salt, "messages": [{"role": "user", "content": text} for text in texts]}


def choose(affinity: Affinity, replicas: list[FakeReplica], *texts: str, adapter_id: str | None = None) -> int:
    """The chosen one's position."""
    prefixes = prefixes_of(body(*texts))
    chosen = affinity.choose(replicas, adapter_id=adapter_id, prefixes=prefixes, crowded_at=8)
    return replicas.index(chosen)


@pytest.mark.parametrize(
    ("replicas", "chosen"),
    [
        ([FakeReplica(2), FakeReplica(1)], 1),
        ([FakeReplica(0, is_ready=False), FakeReplica(7)], 1),
        ([FakeReplica(0, is_ready=False), FakeReplica(99)], 1),
        ([FakeReplica(1, is_ready=False), FakeReplica(0, is_ready=False)], 1),
        ([FakeReplica(0), FakeReplica(7, adapters={"adapter"})], 1),
        ([FakeReplica(0), FakeReplica(8, adapters={"adapter"})], 0),  # crowded
        ([FakeReplica(9), FakeReplica(8)], 1),
    ],
)
def test_ready_before_roomy_before_the_adapter_before_the_load(replicas: list[FakeReplica], chosen: int) -> None:
    assert choose(Affinity(), replicas, "Hello", adapter_id="adapter") == chosen


def test_a_conversation_stays_where_it_began_though_others_have_less_to_do() -> None:
    affinity, replicas = Affinity(), [FakeReplica(1), FakeReplica(0)]
    assert choose(affinity, replicas, *CONVERSATION[:2]) == 1
    replicas[1].in_flight = 5
    assert choose(affinity, replicas, *CONVERSATION) == 1
    assert choose(affinity, replicas, "Something else") == 0


def test_the_longest_shared_beginning_decides() -> None:
    affinity, replicas = Affinity(), [FakeReplica(), FakeReplica(1)]
    assert choose(affinity, replicas, "Be brief.", "One") == 0
    replicas[0].in_flight = 8  # for a moment, so that the next one goes elsewhere
    assert choose(affinity, replicas, "Be brief.", "Two") == 1
    replicas[0].in_flight = 0
    assert choose(affinity, replicas, "Be brief.", "Two", "More") == 1
    assert choose(affinity, replicas, "Be brief.", "One", "More") == 0


def test_prefixes_share_what_the_conversations_share() -> None:
    first, second = prefixes_of(body(*CONVERSATION)), prefixes_of(body(*CONVERSATION[:2], "Other"))
    assert first[:2] == second[:2]
    assert first[2] != second[2]
    assert set(first).isdisjoint(prefixes_of(body(*CONVERSATION, salt="org_2")))


def test_prefixes_are_few_whatever_is_sent() -> None:
    assert len(prefixes_of(body(*["x" * 100_000] * 1000))) == MESSAGES
    assert prefixes_of({}) == []
    odd = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant"}]}
    assert len(prefixes_of(odd)) == 2
    assert prefixes_of(odd)[0] == prefixes_of({"messages": [{"role": "user", "content": "Hi"}]})[0]
