"""What the catalog says: GPU types and models, with prices in integer micro-dollars."""

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Dollars = Annotated[Decimal, Field(ge=0, le=100_000)]
MICROS_PER_DOLLAR = 1_000_000

# Of vLLM's reasoning parsers, those that do not say how a thought begins and ends.
PARSERS_WITHOUT_MARKS = frozenset(
    {"granite", "hunyuan_a13b", "minimax_m2_append_think", "muse_glimmer", "openai_gptoss"}
)

GPU_PATTERN = r"^[A-Z][A-Z0-9]*(:[1-9][0-9]?)?$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuType(_Strict):
    memory_gib: float = Field(ge=0)
    dollars_per_hour: Dollars
    bf16_teraflops: float | None = Field(None, gt=0, description="dense; forecasts of training time need it")

    @property
    def micros_per_hour(self) -> int:
        return int(self.dollars_per_hour * MICROS_PER_DOLLAR)


class TokenPrices(_Strict):
    """Dollars for a million tokens of each kind; those of reasoning cost as others of a completion, unless told."""

    prompt: Dollars
    cached_prompt: Dollars
    completion: Dollars
    reasoning: Dollars | None = None
    training: Dollars

    @cached_property
    def dearest(self) -> tuple[int, int]:
        """What a token of a prompt and one of a completion cost at most, in millionths of a micro-dollar."""
        prompt, completion = max(self.prompt, self.cached_prompt), max(self.completion, self.reasoning or 0)
        return math.ceil(prompt * MICROS_PER_DOLLAR), math.ceil(completion * MICROS_PER_DOLLAR)


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """A GPU type and how many of it; written `A100` or `A100:2`. Each request looks its engine up by one."""

    type: str
    count: int

    @classmethod
    def parse(cls, text: str) -> "GpuChoice":
        type_, _, count = text.upper().partition(":")
        return cls(type=type_, count=int(count or 1))

    def __str__(self) -> str:
        return self.type if self.count == 1 else f"{self.type}:{self.count}"


class ModelSpec(_Strict):
    """Base weights and how to serve and train them."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
    weights: str = Field(min_length=1, description="hub id, or a path relative to the catalog")
    parameters_billions: float = Field(gt=0)
    bytes_per_parameter: float = Field(2.0, gt=0)
    context_length: int = Field(ge=128)
    gpus: list[Annotated[str, StringConstraints(pattern=GPU_PATTERN)]] = Field(min_length=1)
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    trainable: bool = True
    full_fine_tune: bool = False
    pinned: bool = False
    dollars_per_million_tokens: TokenPrices

    @property
    def choices(self) -> list[GpuChoice]:
        """In order of preference."""
        return [GpuChoice.parse(text) for text in self.gpus]

    @property
    def can_limit_thoughts(self) -> bool:
        """Whether its engine can end a thought after so many tokens."""
        return self.reasoning_parser is not None and self.reasoning_parser not in PARSERS_WITHOUT_MARKS


class Catalog(_Strict):
    gpus: dict[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]*$")], GpuType]
    models: list[ModelSpec] = Field(min_length=1)

    @field_validator("models")
    @classmethod
    def ids_are_unique(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        seen: set[str] = set()
        for model in models:
            if model.id.lower() in seen:
                raise ValueError(f"the id {model.id!r} is listed twice (case does not matter)")
            seen.add(model.id.lower())
        return models

    @model_validator(mode="after")
    def gpus_are_known(self) -> "Catalog":
        for model in self.models:
            for choice in model.choices:
                if choice.type not in self.gpus:
                    raise ValueError(f"model {model.id}: GPU type {choice.type} is not among the catalog's gpus")
        return self

    def find(self, name: str) -> ModelSpec | None:
        """By id, in any case."""
        return next((model for model in self.models if model.id.lower() == name.lower()), None)
