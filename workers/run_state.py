"""All that training changes, and what of it a checkpoint holds beside the weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import get_scheduler

from workers.sft_config import Config
from workers.sharding import is_sharded, load_optimizer_state, optimizer_state, shard
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

    @classmethod
    def begin(cls, model: Trained, config: Config, total_steps: int, world: World) -> "Run":
        asked = config.hyperparameters
        if config.is_full and world.size > 1:
            shard(model, world.device)
        model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=asked.learning_rate, weight_decay=asked.weight_decay)
        kind = {"constant": "constant_with_warmup"}.get(asked.lr_scheduler_type, asked.lr_scheduler_type)
        warmup_steps = round(asked.warmup_ratio * total_steps)
        schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps)
        return cls(model, parameters, optimizer, schedule, world)

    def state(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in COUNTS}
        return {**counts, "optimizer": self._optimizer_state(), "schedule": self.schedule.state_dict()}

    def go_on_from(self, state: dict[str, Any]) -> None:
        for name in COUNTS:
            setattr(self, name, state.get(name, getattr(self, name)))  # an older checkpoint has fewer
        if self.is_full:
            load_optimizer_state(self.model, self.optimizer, state["optimizer"])
        else:
            self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def _optimizer_state(self) -> dict[str, Any]:
        return optimizer_state(self.model, self.optimizer) if self.is_full else self.optimizer.state_dict()

    @property
    def is_full(self) -> bool:
        return not isinstance(self.model, PeftModel)

    @property
    def is_sharded(self) -> bool:
        """Each rank has a part of every weight, and none can go forward without the others."""
        return is_sharded(self.model)

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
