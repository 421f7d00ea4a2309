"""Is this file a valid training file? Read as a stream, so that its size costs time but no memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from app.files.row_statistics import RowLengths, SeenRows, estimated_tokens
from app.files.training_row import RowError, check_row, empty_turns, parse

MIB = 1024 * 1024
MAX_LISTED = 50
# A file that is wrong all through is not read to its end: what it costs us stays small.
MAX_COUNTED = 10_000
USUAL_SEQUENCE_TOKENS = 4096  # where a job cuts rows that does not say otherwise
MORE_THAN_USUAL = (
    f"more than the {USUAL_SEQUENCE_TOKENS:,} at which a job cuts rows unless max_seq_length says otherwise"
)
HEAD_BYTES = 64 * 1024
BLANKS = b" \t\r\n"
BOM = b"\xef\xbb\xbf"
UTF_16 = "UTF-16 text"
SIGNATURES = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"{\x00": UTF_16,
    b"\x00{": UTF_16,
}


@dataclass(frozen=True)
class LineProblem:
    """What is wrong with one line; `line` is 1-based and counts blank lines."""

    line: int
    message: str


@dataclass
class Listed:
    """The first 50 of what was found, and how much it was in all."""

    first: list[LineProblem] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, message: str) -> None:
        self.count += 1
        if self.count <= MAX_LISTED:
            self.first.append(LineProblem(line, message))

    def summary(self, noun: str) -> str:
        """One sentence: the first, and how many more there are."""
        first, more = self.first[0], self.count - 1
        at_least = "at least " if noun == "problem" and self.count >= MAX_COUNTED else ""
        rest = f" (and {at_least}{more} more {noun}{'s' if more > 1 else ''})" if more else ""
        return f"Line {first.line}: {first.message}{rest}"


@dataclass
class TrainingFileReport:
    """Problems make the file unusable, and the reading stops at 10,000 of them; warnings do not."""

    n_rows: int = 0
    problems: Listed = field(default_factory=Listed)
    warnings: Listed = field(default_factory=Listed)
    lengths: RowLengths = field(default_factory=RowLengths)

    @property
    def is_valid(self) -> bool:
        return self.problems.count == 0

    def summary(self) -> str | None:
        """None where there is nothing to tell."""
        if not self.is_valid:
            return self.problems.summary("problem")
        return f"Usable, but: {self.warnings.summary('warning')}" if self.warnings.count else None


def check(path: Path, *, max_line_bytes: int = 16 * MIB) -> TrainingFileReport:
    """Check every line. A file of another format is one problem, not one for each of its lines."""
    with path.open("rb", buffering=MIB) as file:
        foreign = _foreign_format(file.read(HEAD_BYTES))
        if foreign:
            return TrainingFileReport(problems=Listed([foreign], 1))
        file.seek(0)
        return _check_lines(file, max_line_bytes)


def _check_lines(file: BinaryIO, max_line_bytes: int) -> TrainingFileReport:
    report, seen = TrainingFileReport(), SeenRows()
    for number, line in _lines(file, max_line_bytes):
        report.n_rows += 1
        try:
            row = _checked(line, max_line_bytes)
        except RowError as problem:
            report.problems.add(number, str(problem))
            if report.problems.count == MAX_COUNTED:
                break
        else:
            _look_closer(report, seen, number, line, row)
    if not report.n_rows:
        report.problems.add(1, "the file has no rows")
    return report


def _checked(line: bytes, max_line_bytes: int) -> dict[str, Any]:
    if len(line) > max_line_bytes:
        raise RowError(f"longer than the {max_line_bytes:,} bytes that a line may have")
    row = parse(line)
    check_row(row)
    return cast(dict[str, Any], row)


def _look_closer(report: TrainingFileReport, seen: SeenRows, number: int, line: bytes, row: dict[str, Any]) -> None:
    """What can be trained on, but may not be meant."""
    n_tokens = estimated_tokens(row)
    report.lengths.add(n_tokens)
    if n_tokens > USUAL_SEQUENCE_TOKENS:
        report.warnings.add(number, f"about {n_tokens:,} tokens, {MORE_THAN_USUAL}")
    if before := seen.line_of(line, number):
        report.warnings.add(number, f"the same row as line {before}")
    for i in empty_turns(row):
        report.warnings.add(number, f"messages[{i}] is an empty assistant message (its weight is 0)")


def is_about_length(warning: str) -> bool:
    """A warning that holds only for a job's usual limit."""
    return warning.endswith(MORE_THAN_USUAL)


def _lines(file: BinaryIO, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank, split on LF alone: U+2028 and U+0085 belong to the text.

    A line over the limit comes cut, one byte longer than the limit.
    """
    number = 0
    while line := file.readline(max_line_bytes + 1):
        number += 1
        end = line
        while len(end) > max_line_bytes and not end.endswith(b"\n"):
            end = file.readline(max_line_bytes + 1)
        if number == 1:
            line = line.removeprefix(BOM)
        if line and not line.isspace():
            yield number, line.rstrip(b"\r\n")


def _foreign_format(head: bytes) -> LineProblem | None:
    for signature, what in SIGNATURES.items():
        if head.startswith(signature):
            return LineProblem(1, f"the file is {what}; what is needed is JSONL, plain UTF-8 text")
    return _foreign_text(head.removeprefix(BOM))


def _foreign_text(head: bytes) -> LineProblem | None:
    """Told by the first two lines together: a single bad line at the top is only a bad line."""
    rows = [(number, line.strip(BLANKS)) for number, line in enumerate(head.split(b"\n"), 1)]
    (number, first), (_, second), *_ = [*(row for row in rows if row[1]), (1, b""), (1, b"")]
    if not second or _is_json(second):
        return None
    if first.startswith((b"{", b"[")) and _is_unfinished(first):
        return LineProblem(number, "a value goes on over several lines; write each row as one object on a line")
    if _is_table_row(first) and _is_table_row(second):
        return LineProblem(number, 'the file looks like CSV; each line must be {"messages": [...]}')
    return None


def _is_json(line: bytes) -> bool:
    try:
        parse(line)
    except RowError:
        return False
    return True


def _is_unfinished(line: bytes) -> bool:
    try:
        parse(line)
    except RowError as problem:
        return problem.is_unfinished
    return False


def _is_table_row(line: bytes) -> bool:
    return not line.startswith((b"{", b"[")) and any(mark in line for mark in (b",", b"\t", b";"))
