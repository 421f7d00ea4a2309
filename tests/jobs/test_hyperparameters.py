"""From what a client asks to numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.errors import BadRequest
from app.jobs.hyperparameters import HyperparametersIn, as_made, auto_epochs, resolve_hyperparameters
from tests.rows import CATALOG

SPEC = CATALOG.models[0]


def resolved(asked: dict[str, Any] | None = None, *, n_rows: int = 100, on_cpu: bool = True) -> dict[str, Any]:
    return resolve_hyperparameters(HyperparametersIn.model_validate(asked or {}), SPEC, n_rows, on_cpu=on_cpu)


def test_everything_unasked_becomes_a_number() -> None:
    assert resolved() == {
        "n_epochs": 3,
        "batch_size": 7,
        "learning_rate": 2e-4,
        "warmup_ratio": 0.03,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "gradient_accumulation_steps": 1,
        "max_grad_norm": 1.0,
        "max_seq_length": 2048,
        "packing": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target_modules": "all-linear",
        "use_rslora": False,
        "use_qlora": False,
        "train_on_inputs": False,
        "validation_split": 0.0,
        "early_stopping_patience": None,
        "gradient_checkpointing": False,
        "max_steps": None,
    }


@pytest.mark.parametrize(
    ("asked", "name", "value"),
    [
        ({"lora_rank": 8}, "lora_r", 8),
        ({"lora_r": 8}, "lora_alpha", 16),
        ({"lora_r": 8, "lora_alpha": 5}, "lora_alpha", 5),
        ({"sequence_length": 512}, "max_seq_length", 512),
        ({"train_steps": 7}, "max_steps", 7),
        ({"total_steps": 7}, "max_steps", 7),
        ({"learning_rate_multiplier": 0.5}, "learning_rate", 1e-4),
        ({"learning_rate_multiplier": 3, "learning_rate": 1e-3}, "learning_rate", 1e-3),
        ({"n_epochs": "auto", "batch_size": "auto"}, "batch_size", 7),
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules", ["q_proj"]),
    ],
)
def test_what_is_asked_is_used(asked: dict[str, Any], name: str, value: object) -> None:
    assert resolved(asked)[name] == value


@pytest.mark.parametrize(
    "asked",
    [
        {"n_epochs": 0},
        {"n_epochs": "many"},
        {"n_epochs": 1.5},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate_multiplier": -1},
        {"learning_rate_multiplier": float("nan")},
        {"warmup_ratio": 1.1},
        {"warmup_ratio": float("nan")},
        {"lr_scheduler_type": "step"},
        {"lora_dropout": 1},
        {"lora_target_modules": []},
        {"max_steps": 0},
        {"max_seq_length": 1},
        {"unheard_of": 1},
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        resolved(asked)


@pytest.mark.parametrize(
    ("asked", "name"),
    [({"lora_r": 65}, "lora_r"), ({"max_seq_length": 2049}, "max_seq_length"), ({"use_qlora": True}, "use_qlora")],
)
def test_what_the_model_cannot_do_is_refused_by_name(asked: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        resolved(asked)
    assert refused.value.param == f"hyperparameters.{name}"


def test_qlora_is_for_gpus() -> None:
    assert resolved({"use_qlora": True}, on_cpu=False)["use_qlora"]


@given(st.integers(1, 10_000_000))
def test_a_run_sees_enough_rows_and_not_too_many(n_rows: int) -> None:
    epochs = auto_epochs(n_rows)
    assert 1 <= epochs <= 25
    assert epochs * n_rows <= 25_000 or epochs == 1
    assert epochs * n_rows >= 100 - n_rows or epochs == 25


ORIGIN = {"lora_r": 8, "lora_alpha": 20, "lora_dropout": 0.1, "lora_target_modules": ["q_proj"], "use_rslora": True}


@pytest.mark.parametrize("asked", [{}, {"lora_r": "auto"}, {"lora_rank": 8, "use_rslora": True}])
def test_what_is_trained_on_stays_as_it_was_made(asked: dict[str, Any]) -> None:
    made = as_made(resolved(asked), HyperparametersIn.model_validate(asked), ORIGIN)
    assert made == {**resolved(asked), **ORIGIN}


def test_what_is_trained_on_cannot_be_made_otherwise() -> None:
    with pytest.raises(BadRequest) as refusal:
        as_made(resolved(), HyperparametersIn(lora_alpha=16), ORIGIN)
    assert refusal.value.param == "hyperparameters.lora_alpha"
