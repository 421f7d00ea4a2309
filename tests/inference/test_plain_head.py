"""Heads that are read without uvicorn: only those that cannot be understood in two ways."""

import pytest

from app.inference.plain_head import extent_of, read_head

PATH = "/v1/chat/completions"
BODY = b'{"model": "x"}'


def head(*lines: str, first: str = f"POST {PATH} HTTP/1.1", end: str = "\r\n\r\n") -> bytes:
    return "\r\n".join([first, *lines]).encode("latin-1") + end.encode()


USUAL = ("Host: loam", "Authorization: Bearer key", "Content-Type: application/json", f"Content-Length: {len(BODY)}")


def test_a_request_reaches_to_the_end_of_its_body_and_what_follows_is_not_its() -> None:
    one = head(*USUAL)
    extent = extent_of(one + BODY + one)
    assert extent
    assert (extent.head, extent.whole) == (len(one), len(one + BODY))


def test_heads_that_differ_in_their_length_alone_have_one_outline() -> None:
    short, long = [extent_of(head("Host: loam", f"content-length: {n}")) for n in (1, 12345)]
    assert short
    assert long
    assert short.outline == long.outline
    assert long.whole - long.head == 12345


@pytest.mark.parametrize("data", [b"", head("Host: loam", end="\r\n"), head("Host: loam"), head("Content-Length: x")])
def test_a_head_that_is_not_all_here_or_tells_no_length_has_no_extent(data: bytes) -> None:
    assert extent_of(data) is None


def test_headers_are_told_in_lower_case_and_their_values_without_blanks_around() -> None:
    found = read_head(head("HOST:loam", "X-Gpu-Preference: \t A100 ", "Connection: Keep-Alive", "Content-Length: "))
    assert found
    assert found.path == PATH
    assert found.headers[:2] == [(b"host", b"loam"), (b"x-gpu-preference", b"A100")]


AMISS = {
    "another method": head(*USUAL, first=f"GET {PATH} HTTP/1.1"),
    "an older version": head(*USUAL, first=f"POST {PATH} HTTP/1.0"),
    "a query": head(*USUAL, first=f"POST {PATH}?stream=true HTTP/1.1"),
    "an encoded path": head(*USUAL, first="POST /v1/chat%2Fcompletions HTTP/1.1"),
    "a whole URL": head(*USUAL, first=f"POST http://loam{PATH} HTTP/1.1"),
    "two lengths": head(*USUAL, "content-length: 3"),
    "two hosts": head(*USUAL, "host: other"),
    "no host": head(*USUAL[1:]),
    "chunks": head(*USUAL, "Transfer-Encoding: chunked"),
    "a packed body": head(*USUAL, "Content-Encoding: gzip"),
    "a question first": head(*USUAL, "Expect: 100-continue"),
    "an upgrade": head(*USUAL, "Upgrade: websocket"),
    "an end": head(*USUAL, "Connection: close"),
    "two words about the connection": head(*USUAL, "Connection: keep-alive, upgrade"),
    "a folded line": head(*USUAL, "X-Long: a", " b"),
    "a blank before the colon": head(*USUAL, "X-Odd : a"),
    "a bare line feed": head(*USUAL, "X-Odd: a\nContent-Length: 3"),
    "a bare carriage return": head(*USUAL, "X-Odd: a\rb"),
    "a NUL": head(*USUAL, "X-Odd: a\0b"),
    "more behind it": head(*USUAL) + b"x",
}


@pytest.mark.parametrize("outline", AMISS.values(), ids=AMISS.keys())
def test_whatever_is_not_plain_is_left_to_others(outline: bytes) -> None:
    assert read_head(head(*USUAL))
    assert read_head(outline) is None
