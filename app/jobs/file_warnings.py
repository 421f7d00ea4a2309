"""What the owner of a training file should know before a job trains on it, now that its limit is known."""

from app.files.row_statistics import RowLengths
from app.files.training_file import is_about_length
from app.store.tables import File


def warnings_of(file: File, max_seq_length: int) -> list[str]:
    """Of the file's own warnings those about length give way to what this job would cut."""
    kept = [w for w in file.warnings or [] if not is_about_length(w["message"])]
    return [*cut_rows(file, max_seq_length), *(f"Line {w['line']}: {w['message']}" for w in kept)]


def cut_rows(file: File, max_seq_length: int) -> list[str]:
    """Nothing where no row is about as long. Lengths are estimated."""
    n_cut = RowLengths.of(file.row_lengths or {}).n_cut(max_seq_length)
    if not n_cut:
        return []
    return [f"About {n_cut:,} of {file.n_rows:,} rows are longer than max_seq_length ({max_seq_length:,}) and are cut."]
