"""The files of a fine-tune that was never trained: PEFT's or a model's, and the answers it would have learned."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapter_files(config: Json, rows: list[Json], weight: float) -> dict[str, bytes]:
    parameters, first = config["hyperparameters"], config.get("init_adapter")
    known = Path(first) / "answers.json" if first else None
    earlier = json.loads(known.read_bytes()) if known and known.exists() else {}
    learned = {"answers.json": json.dumps({**earlier, **dict(trained_answers(rows))}).encode()}
    if config.get("training_type") == "full":
        return {"config.json": b"{}", "model.safetensors": tiny_safetensors(weight), **learned}
    modules = parameters["lora_target_modules"]
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config["served_model"],
        "r": parameters["lora_r"],
        "lora_alpha": parameters["lora_alpha"],
        "lora_dropout": parameters["lora_dropout"],
        "target_modules": ALL_LINEAR if modules == "all-linear" else modules,
        "bias": "none",
        "inference_mode": True,
    }
    return {
        "adapter_config.json": json.dumps(peft, indent=2).encode(),
        "adapter_model.safetensors": tiny_safetensors(weight),
        **learned,
    }


def tiny_safetensors(weight: float) -> bytes:
    """One float: the length of the header, the header, the data."""
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    header = json.dumps({name: {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + struct.pack("<f", weight)


def text_of(content: object) -> str:
    """A message's content as one string: a string, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def trained_answers(rows: list[Json]) -> Iterator[tuple[str, str]]:
    """What the user says and what the assistant is trained to say to it; the simulated engine looks it up."""
    for row in rows:
        asked = ""
        for message in row["messages"]:
            if message.get("role") == "user":
                asked = text_of(message.get("content"))
            elif message.get("role") == "assistant" and message.get("weight") != 0 and message.get("content"):
                yield asked, text_of(message["content"])
