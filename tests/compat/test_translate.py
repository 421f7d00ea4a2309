"""What a synth-ai client asks for, as the job that is made of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.compat.schemas import CompatJobCreate

Json = dict[str, Any]
BODY = {"model": "m", "training_type": "sft_offline", "training_file_id": "file-1"}


def job(**fields: Any) -> CompatJobCreate:
    return CompatJobCreate.model_validate({**BODY, **fields})


def effective(**parts: Any) -> Json:
    return {"metadata": {"effective_config": parts}}


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({"total_steps": 5}, {"max_steps": 5}),
        ({"train_steps": 5}, {"max_steps": 5}),
        ({"steps": 5}, {"max_steps": 5}),
        ({"sequence_length": 512, "warmup_ratio": 0.1}, {"max_seq_length": 512, "warmup_ratio": 0.1}),
        ({"global_batch": 16}, {"batch_size": 16}),
        ({"per_device_batch": 2}, {"batch_size": 2}),
        ({"per_device_batch": 2, "global_batch": 16}, {"batch_size": 2, "gradient_accumulation_steps": 8}),
        ({"per_device_batch": 2, "batch_size": 4}, {"batch_size": 4}),
        ({"n_epochs": 1, "train_kind": "peft"}, {"n_epochs": 1}),
        ({"train_kind": "QLoRA"}, {"use_qlora": True}),
        ({"eval_steps": 10, "parallelism": {"use_fsdp": True}, "evaluation_strategy": "steps"}, {}),
    ],
)
def test_hyperparameters_have_our_names(asked: Json, numbers: Json) -> None:
    assert job(hyperparameters=asked).asked.model_dump(exclude_unset=True) == numbers


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {"training_file": "file-1", "training_type": "sft", "gpu_preference": None}),
        ({"training_file_id": None, "training_file": "file-2"}, {"training_file": "file-2"}),
        ({"training_type": None}, {"training_type": "sft"}),
        ({"training_type": "full"}, {"training_type": "full"}),
        ({"hyperparameters": {"train_kind": "FFT"}}, {"training_type": "full"}),
        ({"hyperparameters": {"train_kind": "peft"}, **effective(training={"mode": "lora"})}, {"training_type": "sft"}),
        ({"hyperparameters": {}, **effective(training={"mode": "full"})}, {"training_type": "full"}),
        ({"hyperparameters": {}, **effective(training={"mode": "full_finetune"})}, {"training_type": "full"}),
        (effective(compute={"gpu_type": "H100", "gpu_count": 2}), {"gpu_preference": "H100:2"}),
        (effective(compute={"gpu_type": "H100"}), {"gpu_preference": "H100"}),
        (effective(data={"validation_files": ["file-3"]}), {"validation_file": "file-3"}),
        (effective(data={"validation_files": []}), {"validation_file": None}),
        (effective(data=7, compute=[], training=None), {"gpu_preference": None}),
        (
            {"metadata": {"a": "b", "n": 1, "deep": {"x": [1]}}},
            {"metadata": {"a": "b", "n": "1", "deep": '{"x": [1]}'}},
        ),
        (effective(compute={}), {"metadata": {}}),
    ],
)
def test_what_lies_deep_in_the_metadata_is_found(fields: Json, wanted: Json) -> None:
    made = job(**fields).model_dump()
    assert {name: made[name] for name in wanted} == wanted


def test_qlora_may_be_asked_in_the_effective_configuration() -> None:
    assert job(hyperparameters={}, **effective(training={"use_qlora": True})).asked.use_qlora


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hyperparameters": {"train_kind": "dpo"}}, "cannot be trained here"),
        ({"hyperparameters": {}, **effective(training={"mode": "freeze"})}, "cannot be trained here"),
        ({"hyperparameters": {"train_kind": 7}}, "cannot be trained here"),
        ({"training_type": "sft_online"}, "training_type must be sft"),
        ({"training_type": ["sft"]}, "training_type"),
        ({"training_file_id": None}, "training_file"),
        ({"hyperparameters": {"momentum": 1}}, "momentum"),
        ({"hyperparameters": [1]}, "hyperparameters"),
        ({"hyperparameters": {"per_device_batch": "x", "global_batch": 8}}, "batch_size"),
        ({"metadata": 7}, "metadata"),
        ({"metadata": {"long": ["x" * 600]}}, "metadata"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(fields: Json, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        job(**fields)
