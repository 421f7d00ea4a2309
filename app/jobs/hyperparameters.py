"""From what a client asks ("auto" included) to the numbers a run uses."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.catalog.spec import ModelSpec
from app.errors import BadRequest
from app.files.training_file import USUAL_SEQUENCE_TOKENS

Auto = Literal["auto"]

# What an adapter is made with, and keeps when its training goes on.
MADE_WITH = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora")
# What a full fine-tune has none of.
OF_ADAPTERS = (*MADE_WITH, "use_qlora")

# The layers that engines serve adapters on.
Linear = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

BASE_LEARNING_RATE = 2e-4
FULL_LEARNING_RATE = 2e-5  # all weights move, and none of them far


class HyperparametersIn(BaseModel):
    """Every name the wire knows; a name that is not here is refused."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_seq_length: Annotated[int, Field(ge=16)] | Auto = Field(
        "auto", validation_alias=AliasChoices("max_seq_length", "sequence_length")
    )
    packing: bool | Auto = "auto"
    lora_r: Annotated[int, Field(ge=1, le=512)] | Auto = Field(
        "auto", validation_alias=AliasChoices("lora_r", "lora_rank")
    )
    lora_alpha: Annotated[int, Field(ge=1, le=4096)] | Auto = "auto"
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_target_modules: Literal["all-linear"] | Annotated[list[Linear], Field(min_length=1, max_length=7)] = (
        "all-linear"
    )
    use_rslora: bool = False
    use_qlora: bool = False
    train_on_inputs: bool = False
    validation_split: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    gradient_checkpointing: bool | Auto = "auto"
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, validation_alias=AliasChoices("max_steps", "train_steps", "total_steps")
    )


def resolve_hyperparameters(
    asked: HyperparametersIn, spec: ModelSpec, n_rows: int, *, on_cpu: bool, is_full: bool = False
) -> dict[str, Any]:
    """Every value a number. Raises BadRequest for what the model cannot be trained or served with."""
    numbers = asked.model_dump(exclude={"learning_rate_multiplier"})
    automatic = _automatic(asked, spec, n_rows, FULL_LEARNING_RATE if is_full else BASE_LEARNING_RATE)
    numbers |= {name: value for name, value in automatic.items() if numbers[name] == "auto"}
    if is_full:
        numbers = _without_adapter(asked, numbers)
    elif numbers["lora_r"] > spec.max_lora_rank:
        _refuse(
            "lora_r",
            f"{numbers['lora_r']} is more than the {spec.max_lora_rank} that {spec.id} is served with",
        )
    if numbers["max_seq_length"] > spec.context_length:
        _refuse(
            "max_seq_length",
            f"{numbers['max_seq_length']} is more than {spec.id}'s context of {spec.context_length}",
        )
    if numbers.get("use_qlora") and on_cpu:
        _refuse("use_qlora", "QLoRA needs a CUDA GPU")
    return numbers


def _without_adapter(asked: HyperparametersIn, numbers: dict[str, Any]) -> dict[str, Any]:
    for name in OF_ADAPTERS:
        if name in asked.model_fields_set and getattr(asked, name) not in ("auto", False):
            _refuse(name, "a full fine-tune trains all weights, and has no adapter")
    return {name: number for name, number in numbers.items() if name not in OF_ADAPTERS}


def as_made(numbers: dict[str, Any], asked: HyperparametersIn, origin: Mapping[str, Any]) -> dict[str, Any]:
    """With those of the job whose adapter is trained on. Raises BadRequest where others are asked for."""
    made = {name: origin[name] for name in MADE_WITH if name in origin}
    for name, value in made.items():
        if name in asked.model_fields_set and getattr(asked, name) not in ("auto", value):
            _refuse(name, f"the model that is to be trained on was made with {value}")
    return {**numbers, **made}


def require_validation_rows(numbers: dict[str, Any], n_rows: int, *, has_file: bool) -> None:
    """Raises BadRequest where early stopping would have nothing to go by."""
    has_rows = has_file or (numbers["validation_split"] > 0 and n_rows > 1)
    if numbers["early_stopping_patience"] and not has_rows:
        _refuse("early_stopping_patience", "it needs a validation_file, or a validation_split of more than one row")


def _automatic(asked: HyperparametersIn, spec: ModelSpec, n_rows: int, learning_rate: float) -> dict[str, Any]:
    multiplier = 1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
    rank = min(16, spec.max_lora_rank) if asked.lora_r == "auto" else asked.lora_r
    return {
        "n_epochs": auto_epochs(n_rows),
        "batch_size": min(8, max(1, math.ceil(n_rows / 16))),
        "learning_rate": learning_rate * multiplier,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,  # where memory asks for it: `estimate.spare_memory`
        "packing": True,  # rows stay apart and a step holds the same ones: it only spares the padding
        "max_seq_length": min(USUAL_SEQUENCE_TOKENS, spec.context_length),
        "lora_r": rank,
        "lora_alpha": 2 * rank,
    }


def auto_epochs(n_rows: int) -> int:
    """Three, but so that a run sees between 100 and 25,000 rows where 1 to 25 epochs allow it."""
    if 3 * n_rows < 100:
        return min(25, 100 // max(1, n_rows))
    if 3 * n_rows > 25_000:
        return max(1, 25_000 // n_rows)
    return 3


def _refuse(name: str, reason: str) -> None:
    raise BadRequest(f"hyperparameters.{name}: {reason}.", param=f"hyperparameters.{name}")
