"""All that training changes, and what of it a checkpoint holds beside the weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from workers.trained import Trained
from workers.world import World

COUNTS = ("step", "trained_tokens", "train_loss", "best_step", "best_loss", "n_worse")


@dataclass
class Run:
    model: Trained
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    world: World
    step: int = 0
    trained_tokens: int = 0
    train_loss: float = math.nan
    best_step: int = 0  # of the best validation, and how many have been worse since
    best_loss: float = math.inf
    n_worse: int = 0
    in_halves: bool = False  # memory ran out once; a matter of this process, so no part of the state

    def state(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in COUNTS}
        return {**counts, "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def go_on_from(self, state: dict[str, Any]) -> None:
        for name in COUNTS:
            setattr(self, name, state.get(name, getattr(self, name)))  # an older checkpoint has fewer
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    @property
    def was_better(self) -> bool:
        """The best checkpoint is to be published instead of what the run has come to."""
        return self.n_worse > 0 and self.best_step > 0

    def improves_with(self, valid_loss: float) -> bool:
        if not valid_loss < self.best_loss:  # nor does what is no number
            self.n_worse += 1
            return False
        self.best_step, self.best_loss, self.n_worse = self.step, valid_loss, 0
        return True
