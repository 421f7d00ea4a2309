"""The head of a request, read at once where it is as plain as clients write it; uvicorn reads all others.

httptools calls back for each header, and uvicorn makes a scope of them, a cycle and an event: a fifth of what a
request costs (see bench/). On one connection the heads differ in their length alone, so the last one is remembered.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.http_reply import Header

END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,9})\r\n", re.IGNORECASE)
LINE = rb"[!#$%&'*+.^`|~\w-]+:[^\x00-\x08\n-\x1f\x7f]*\r\n"
PLAIN = re.compile(rb"POST (/[\w/.-]*) HTTP/1\.1\r\n((?:" + LINE + rb")+)\r\n", re.ASCII)
# What says that the body is not what it looks like, or that something is expected before it.
NOT_PLAIN = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer"})


@dataclass(frozen=True, slots=True)
class PlainHead:
    """Names of headers are in lower case."""

    path: str
    headers: list[Header]


@dataclass(slots=True)
class Extent:
    """Where a request's head and body end, counted in bytes; `outline`: the head but for how long the body is."""

    head: int
    whole: int
    outline: bytes


def extent_of(data: bytes) -> Extent | None:
    """None where the head is not all here, or tells no length."""
    end = data.find(END) + len(END)
    length = LENGTH.search(data, 0, end)
    if length is None:
        return None
    return Extent(end, end + int(length[1]), data[: length.start(1)] + data[length.end(1) : end])


def read_head(outline: bytes) -> PlainHead | None:
    """None for one that is not plain: anything but a POST in HTTP/1.1 with a body of one length."""
    match = PLAIN.fullmatch(outline)
    if match is None:
        return None
    lines = (line.partition(b":") for line in match[2].split(b"\r\n")[:-1])
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    return PlainHead(match[1].decode(), headers) if _are_plain(headers) else None


def _are_plain(headers: Iterable[Header]) -> bool:
    names = [name for name, _ in headers]
    closing = [value for name, value in headers if name == b"connection" and value.lower() != b"keep-alive"]
    once = names.count(b"host") == names.count(b"content-length") == 1
    return once and not closing and NOT_PLAIN.isdisjoint(names)
