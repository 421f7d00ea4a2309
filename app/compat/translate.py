"""From the job that a synth-ai client asks for to the one that we know; pure."""

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

# What every run here does anyway, or decides by itself.
WITHOUT_MEANING = (
    "evaluation_strategy",
    "eval_steps",
    "save_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "parallelism",
)
LORA = ("peft", "lora", "qlora", "sft")
ALL_WEIGHTS = ("fft", "full", "full_finetune")


def as_job(body: Mapping[str, Any]) -> Json:
    """What is wrong in it stays wrong: the job's own checks say so. Raises ValueError for an unknown training."""
    effective = _part(_part(body, "metadata"), "effective_config")
    job = dict(body)
    job["training_type"] = _training_type(body, _part(effective, "training"))
    job["training_file"] = body.get("training_file_id") or body.get("training_file")
    job["validation_file"] = body.get("validation_file") or _first(_part(effective, "data").get("validation_files"))
    job["hyperparameters"] = _hyperparameters(body.get("hyperparameters"), _part(effective, "training"))
    job["metadata"] = _metadata(body.get("metadata"))
    job["gpu_preference"] = body.get("gpu_preference") or _gpu(_part(effective, "compute"))
    return job


def _part(whole: Mapping[str, Any], name: str) -> Json:
    """An object inside another; empty where there is none."""
    inner = whole.get(name)
    return inner if isinstance(inner, dict) else {}


def _training_type(body: Mapping[str, Any], training: Json) -> Any:
    asked = body.get("training_type")
    if asked not in (None, "", "sft", "sft_offline"):
        return asked
    kinds = (_part(body, "hyperparameters").get("train_kind"), training.get("mode"))
    return "full" if any(_lower(kind) in ALL_WEIGHTS for kind in kinds) else "sft"


def _hyperparameters(asked: Any, training: Json) -> Any:
    if not isinstance(asked, dict):
        return asked
    _require_known(asked.get("train_kind"), "hyperparameters.train_kind")
    _require_known(training.get("mode"), "training.mode")
    numbers = {name: value for name, value in asked.items() if name not in (*WITHOUT_MEANING, "train_kind")}
    if "steps" in numbers:
        numbers.setdefault("max_steps", numbers.pop("steps"))
    if training.get("use_qlora") is True or "qlora" in (_lower(asked.get("train_kind")), _lower(training.get("mode"))):
        numbers["use_qlora"] = True
    return _batches(numbers)


def _require_known(kind: Any, name: str) -> None:
    if kind is not None and _lower(kind) not in LORA + ALL_WEIGHTS:
        raise ValueError(f"{name}: {str(kind)[:50]!r} cannot be trained here; LoRA (peft, qlora) and fft can")


def _lower(word: Any) -> Any:
    return word.lower() if isinstance(word, str) else word


def _batches(numbers: Json) -> Json:
    """`global_batch` rows a step, `per_device_batch` of them at once; we name the latter and how many there are."""
    whole, at_once = numbers.pop("global_batch", None), numbers.pop("per_device_batch", None)
    if at_once is not None:
        numbers.setdefault("batch_size", at_once)
        if isinstance(whole, int) and isinstance(at_once, int) and at_once > 0:
            numbers.setdefault("gradient_accumulation_steps", max(1, whole // at_once))
    elif whole is not None:
        numbers.setdefault("batch_size", whole)
    return numbers


def _metadata(asked: Any) -> Any:
    """Ours holds strings. The effective configuration is the job itself, and told from it."""
    if not isinstance(asked, dict):
        return asked
    kept = {key: value for key, value in asked.items() if key != "effective_config"}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in kept.items()}


def _gpu(compute: Json) -> str | None:
    kind, count = compute.get("gpu_type"), compute.get("gpu_count")
    if not isinstance(kind, str) or not kind:
        return None
    return f"{kind}:{count}" if count else kind


def _first(files: Any) -> Any:
    return files[0] if isinstance(files, list) and files else None
