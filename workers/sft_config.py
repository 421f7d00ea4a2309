"""What config.json asks of the recipe: every value a number, "auto" was resolved before."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Hyperparameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    n_epochs: int
    batch_size: int  # rows of one forward pass
    gradient_accumulation_steps: int  # forward passes of one optimizer step
    max_steps: int | None = None
    learning_rate: float
    lr_scheduler_type: Literal["cosine", "linear", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float  # 0: no clipping
    max_seq_length: int
    packing: bool  # rows of a forward pass lie end to end without padding, and do not see each other
    train_on_inputs: bool
    validation_split: float = 0.0  # this share of the rows is kept for validation, if no file is given
    early_stopping_patience: int | None = None  # so many validations without a better one end the run; the best is kept
    # of an adapter; a full fine-tune has none
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: Literal["all-linear"] | list[str] = "all-linear"
    use_rslora: bool = False  # scaled by the root of the rank, so that high ranks learn as well
    use_qlora: bool = False
    gradient_checkpointing: bool


class Wandb(BaseModel):
    """Where Weights & Biases is to keep what is measured."""

    project: str
    entity: str | None = None
    name: str | None = None
    tags: list[str] | None = None


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())

    job_id: str
    model_path: str
    served_model: str  # what the engine calls the base
    training_file: Path
    validation_file: Path | None
    init_adapter: Path | None  # of a full fine-tune, the model that it continues
    training_type: Literal["sft", "full"] = "sft"
    device: Literal["cpu", "cuda"]
    seed: int
    checkpoint_every_steps: int
    keep_checkpoints: int
    wandb: Wandb | None = None
    hyperparameters: Hyperparameters

    @property
    def is_full(self) -> bool:
        """Every weight is trained, and the model is its own."""
        return self.training_type == "full"
