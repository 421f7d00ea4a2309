"""The rows of a training file, as they lie there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class RowError(ValueError):
    """What is wrong with a row, for the eyes of the file's owner; it begins with the line's number."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"Line {line}: {message}")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """1-based line numbers of the raw file; blank lines count but give nothing.

    Lines end with a newline alone: str.splitlines would cut at U+2028 and U+0085 inside of strings.
    """
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            text = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise RowError(line, f"not a JSON object in UTF-8 ({error})") from error
            if not isinstance(row, dict) or not row.get("messages"):
                raise RowError(line, "no messages")
            yield line, row
