"""A connection remembers the latest conversations, as many as fit."""

import orjson

from app.inference.responses_recent import Recent

TALK = [{"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Loam?"}]}]
SIZE = len(orjson.dumps(TALK))


def test_the_oldest_is_forgotten_for_the_newest() -> None:
    recent = Recent(max_bytes=2 * SIZE)
    for name in ("a", "b", "c"):
        recent.remember(name, TALK)
    assert [recent.find(name) for name in ("a", "b", "c")] == [None, TALK, TALK]


def test_what_is_forgotten_makes_room() -> None:
    recent = Recent(max_bytes=2 * SIZE)
    recent.remember("a", TALK)
    recent.remember("b", TALK)
    for never_there in ("b", "b", None, ["b"], 5):
        recent.forget(never_there)
    recent.remember("c", TALK)
    assert (recent.find("a"), recent.find("c")) == (TALK, TALK)


def test_what_is_too_large_alone_is_not_remembered() -> None:
    recent = Recent(max_bytes=SIZE - 1)
    recent.remember("a", TALK)
    assert recent.find("a") is None
    assert recent.find(None) is None
