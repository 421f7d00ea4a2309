"""Failures of the recipe that were foreseen, in words for the owner of the job."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workers.training_rows import RowError


class TrainingError(Exception):
    """A foreseen failure; its message is for the owner of the job."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


FORESEEN = (TrainingError, RowError, torch.OutOfMemoryError, OSError)

OF_CPU = "DefaultCPUAllocator"  # in the message of torch's error, which is of no kind of its own


@contextmanager
def out_of_memory_named() -> Iterator[None]:
    """The CPU's memory runs out as a GPU's does. Raises torch.OutOfMemoryError."""
    try:
        yield
    except RuntimeError as error:
        if OF_CPU not in str(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


def explain(error: Exception) -> tuple[str, str]:
    match error:
        case TrainingError():
            return error.code, str(error)
        case RowError():
            return "invalid_training_file", str(error)
        case torch.OutOfMemoryError():
            return "out_of_memory", "The device's memory ran out; try a smaller batch_size or max_seq_length."
        case OSError(errno=errno.ENOSPC):
            return "disk_full", "The disk is full."
        case _:
            return "io_error", "The model or a file could not be read or written."
