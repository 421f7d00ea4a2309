"""A zip made while it is sent: what is in memory is never more than a piece."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of a folder that is given away: its name there, and its bytes or where they lie."""

    name: str
    source: Path | bytes

    def open(self) -> IO[bytes]:
        return self.source.open("rb") if isinstance(self.source, Path) else BytesIO(self.source)


class _Outgoing:
    """The file that ZipFile writes to. It cannot seek, so that sizes are told behind each member."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """ZipFile wants it."""

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def zipped(members: Sequence[Member]) -> Iterator[bytes]:
    """Stored, not deflated: weights do not get smaller."""
    out = _Outgoing()
    with ZipFile(out, "w", ZIP_STORED) as archive:  # type: ignore[call-overload] # it needs no more than these
        for member in members:
            entry = ZipInfo(member.name, time.localtime()[:6])
            with member.open() as source, archive.open(entry, "w", force_zip64=True) as inside:
                while piece := source.read(PIECE_BYTES):
                    inside.write(piece)
                    yield out.take()
    yield out.take()
