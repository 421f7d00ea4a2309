"""Zips that are made while they are sent."""

from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from app.files.zipped import PIECE_BYTES, Member, zipped


def test_a_zip_holds_what_was_put_in_and_no_piece_of_it_is_large(tmp_path: Path) -> None:
    large = bytes(range(256)) * (5 * PIECE_BYTES // 256) + b"end"
    (tmp_path / "weights").write_bytes(large)
    pieces = list(zipped([Member("a.json", b"{}"), Member("weights", tmp_path / "weights"), Member("empty", b"")]))
    assert max(map(len, pieces)) < PIECE_BYTES + 1000
    with ZipFile(BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.json": b"{}",
            "weights": large,
            "empty": b"",
        }
        assert {entry.compress_type for entry in archive.infolist()} == {ZIP_STORED}
