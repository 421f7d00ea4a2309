"""Row lengths are kept small and near enough."""

import pytest

from app.files.row_statistics import RowLengths, SeenRows, rounded_up


@pytest.mark.parametrize(
    ("n_tokens", "rounded"), [(1, 1), (7, 7), (8, 8), (9, 10), (16, 16), (17, 20), (100, 112), (4097, 5120)]
)
def test_a_length_is_rounded_up_by_less_than_a_quarter(n_tokens: int, rounded: int) -> None:
    assert rounded_up(n_tokens) == rounded


def test_rows_are_counted_as_long_as_they_are_trained_on() -> None:
    lengths = RowLengths()
    for n_tokens in (10, 10, 4000):
        lengths.add(n_tokens)
    kept = RowLengths.of(lengths.stored())
    assert (kept.n_tokens(100), kept.n_cut(100)) == (120, 1)
    assert (kept.n_tokens(8000), kept.n_cut(8000)) == (4116, 0)


def test_a_row_is_known_again_by_its_last_line() -> None:
    seen = SeenRows()
    assert [seen.line_of(row, line) for line, row in enumerate((b"a", b"b", b"a", b"a"), 1)] == [None, None, 1, 3]
