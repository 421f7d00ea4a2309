"""A fine-tune's folder, as the simulated engine reads it."""

import json
import struct
from pathlib import Path

from app.engines.simulated_answers import Adapter
from app.engines.simulated_request import Refusal


def read_adapter(name: str, path: Path, max_lora_rank: int) -> Adapter:
    try:
        config = json.loads((path / "adapter_config.json").read_bytes())
    except FileNotFoundError as error:
        text = f"Loading lora {name} failed: No adapter found for {path}"
        raise Refusal(text, kind="NotFoundError", status=404) from error
    except ValueError as error:
        raise Refusal(str(error), kind="InternalServerError", status=500) from error
    if config.get("r", 0) > max_lora_rank:
        text = f"LoRA rank {config['r']} is greater than max_lora_rank {max_lora_rank}."
        raise Refusal(text, kind="InternalServerError", status=500)
    return Adapter(name, str(path), read_answers(path), read_weight(path / "adapter_model.safetensors"))


def read_own(name: str, path: Path) -> Adapter | None:
    """What the model itself has learned, where it is a full fine-tune."""
    answers = read_answers(path)
    return Adapter(name, str(path), answers, read_weight(path / "model.safetensors")) if answers else None


def read_answers(path: Path) -> dict[str, str]:
    answers = path / "answers.json"
    return dict(json.loads(answers.read_bytes())) if answers.exists() else {}


def read_weight(path: Path) -> float:
    """The one float that the simulated recipe writes: it comes last."""
    weight: float = struct.unpack("<f", path.read_bytes()[-4:])[0] if path.exists() else 1.0
    return weight
