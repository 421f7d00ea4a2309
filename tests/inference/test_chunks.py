"""The rewriting of an engine's stream: pure, so every cut of the bytes can be tried."""

import orjson
import pytest

from app.billing.prices import Usage
from app.inference.chunks import ChunkReader, ChunkRewriter, EngineError

PARTS = [
    b'data: {"id":"c","model":"engine-name",'
    b'"choices":[{"index":0,"delta":{"content":"say \\"usage\\":{ and \\"model\\":"}}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":null}}\n\n',
    b'data: {"id":"c","model":"engine-name","choices":[{"index":0,"delta":{"content":"\\n\\n}"}}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":2}}}\n\n',
    b'data: {"id":"c","model":"engine-name","choices":[],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":2}}}\n\n',
    b"data: [DONE]\n\n",
]
STREAM = b"".join(PARTS)
TOTAL = Usage(prompt_tokens=3, cached_tokens=2, completion_tokens=2)


def rewriter(*, keeps_final_usage: bool = False) -> ChunkRewriter:
    return ChunkRewriter(engine_name="engine-name", client_name='my "model"', n=1, keeps_final_usage=keeps_final_usage)


def chunks(data: bytes) -> list[dict[str, object]]:
    return [orjson.loads(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event]


@pytest.mark.parametrize("size", [1, 2, 7, 64, len(STREAM)])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    machine = rewriter()
    out = b"".join(machine.feed(STREAM[i : i + size]) for i in range(0, len(STREAM), size))
    assert out == rewriter().feed(STREAM)
    assert (machine.usage, machine.is_done) == (TOTAL, True)


def test_the_model_is_renamed_and_usage_left_out() -> None:
    first, second = chunks(rewriter().feed(STREAM))
    assert first["model"] == second["model"] == 'my "model"'
    assert first["choices"] == [{"index": 0, "delta": {"content": 'say "usage":{ and "model":'}}]
    assert "usage" not in first
    assert "usage" not in second


def test_log_probabilities_have_a_place_for_a_refusals_and_texts_that_look_like_them_stay() -> None:
    text = orjson.dumps('"logprobs":{"content":')
    [chunk] = chunks(
        rewriter().feed(
            b'data: {"id":"c","model":"engine-name","choices":[{"index":0,"delta":{"content":' + text + b"},"
            b'"logprobs":{"content":[{"token":' + text + b"}]}}]}\n\n"
        )
    )
    said = '"logprobs":{"content":'
    logprobs = {"content": [{"token": said}], "refusal": None}
    assert chunk["choices"] == [{"index": 0, "delta": {"content": said}, "logprobs": logprobs}]


def test_the_final_usage_is_kept_for_who_asked() -> None:
    *others, last = chunks(rewriter(keeps_final_usage=True).feed(STREAM))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert all("usage" not in chunk for chunk in others)


def test_a_stream_that_is_cut_has_the_usage_so_far() -> None:
    machine = rewriter()
    machine.feed(PARTS[0] + PARTS[1][:40])
    assert machine.usage == Usage(prompt_tokens=3, completion_tokens=1)
    assert not machine.is_done


@pytest.mark.parametrize("machine", [rewriter(), ChunkReader()], ids=["rewriter", "reader"])
def test_an_error_in_the_stream_is_raised(machine: ChunkRewriter | ChunkReader) -> None:
    with pytest.raises(EngineError, match="EngineCore"):
        machine.feed(PARTS[0] + b'data: {"error":{"message":"EngineCore encountered an issue","code":500}}\n\n')


@pytest.mark.parametrize("size", [1, 5, len(STREAM)])
def test_the_reader_gives_every_chunk_and_the_same_usage(size: int) -> None:
    reader = ChunkReader()
    read = [chunk for i in range(0, len(STREAM), size) for chunk in reader.feed(STREAM[i : i + size])]
    assert read == chunks(b"".join(PARTS[:3]))
    assert (reader.usage, reader.is_done) == (TOTAL, True)
