"""The processes that train one model together: who each is, and how what they found is added up."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed import ReduceOp, all_reduce

from workers.sft_errors import TrainingError

SILENCE = timedelta(minutes=30)  # one that has died is seen at once by who started it; this is for one that hangs


@dataclass(frozen=True)
class World:
    """Alone unless told otherwise; then all that is shared is one's own."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str, meeting: Path | None) -> "World":
        """With the others who come to the same file. RANK, WORLD_SIZE and their like are those of torchrun."""
        if meeting is None:
            return cls(torch.device(device))
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        on_cpu = device == "cpu"
        # A file, since torch's usual meeting is a port on every interface of the host, open to whoever comes.
        state = PartialState(cpu=on_cpu, init_method=meeting.as_uri(), rank=rank, world_size=size, timeout=SILENCE)
        return cls(state.device, state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """The one that writes what others read."""
        return self.rank == 0

    def leave(self) -> None:
        if self.size > 1:
            PartialState().destroy_process_group()

    def require_same(self, step: int) -> None:
        """Raises TrainingError where not all have come equally far: one may have failed to read a checkpoint."""
        furthest, least = self._reduced([step, -step], ReduceOp.MAX)
        if furthest != -least:
            raise TrainingError("checkpoints_differ", "The newest checkpoint could not be read on every GPU.")

    def sums(self, *numbers: float) -> list[float]:
        """Each added up over all ranks."""
        return self._reduced(numbers, ReduceOp.SUM)

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Every rank then has the sum. In one message: a rank without rows has none, and takes part all the same."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        all_reduce(flat)
        for parameter, summed in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = summed.view_as(parameter)

    @contextmanager
    def together(self, *kinds: type[Exception]) -> Iterator[None]:
        """What one rank raises of these, all raise at the end of the block; of several, the last kind."""
        raised: Exception | None = None
        try:
            yield
        except kinds as error:
            raised = error
        own = next((number for number, kind in enumerate(kinds, start=1) if isinstance(raised, kind)), 0)
        (worst,) = self._reduced([own], ReduceOp.MAX)
        try:
            if raised and own == worst:
                raise raised
            if worst:
                raise kinds[int(worst) - 1]
        finally:
            raised = None  # else it and its traceback would hold each other, and all tensors of the block

    def _reduced(self, numbers: Sequence[float], how: ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        all_reduce(found, how)
        told: list[float] = found.tolist()
        return told
