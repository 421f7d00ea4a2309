"""How much memory an engine needs, estimated before it is tried. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.catalog.spec import GpuChoice, ModelSpec
from app.errors import BadRequest

GIB = 1 << 30
CACHE_BYTES_PER_VALUE = LORA_BYTES_PER_VALUE = 2  # bf16


class DoesNotFit(BadRequest):
    code = "model_does_not_fit"


@dataclass(frozen=True)
class Need:
    weights_bytes: int
    cache_bytes: int = 0
    adapter_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.adapter_bytes


def estimate(model: ModelSpec, config: Mapping[str, Any] | None, weights_bytes: int | None, *, n_adapters: int) -> Need:
    """Of the weights, the cache of one whole context, and the slots for adapters. `config` is the model's own
    `config.json`; what it does not tell, and all but the weights where there is none, counts as nothing.
    """
    weights = weights_bytes or int(model.parameters_billions * 1e9 * model.bytes_per_parameter)
    try:
        shape = Shape.of(config or {})
    except (KeyError, TypeError, ValueError):
        return Need(weights)
    cache = sum(shape.cache_values(layer, model.context_length) for layer in range(shape.layers))
    per_rank = shape.layers * shape.lora_values_per_rank if model.trainable else 0
    return Need(
        weights,
        cache * CACHE_BYTES_PER_VALUE,
        per_rank * model.max_lora_rank * n_adapters * LORA_BYTES_PER_VALUE,
    )


def check_fits(model: ModelSpec, gpu: GpuChoice, need: Need, *, room_bytes: float) -> None:
    """Raises DoesNotFit, with the figures."""
    if need.total_bytes <= room_bytes:
        return
    figures = {
        "weights_gib": _gib(need.weights_bytes),
        "cache_gib": _gib(need.cache_bytes),
        "adapters_gib": _gib(need.adapter_bytes),
        "available_gib": _gib(room_bytes),
    }
    raise DoesNotFit(
        f"{model.id} does not fit {gpu}: it needs {figures['weights_gib']} GiB for its weights, "
        f"{figures['cache_gib']} GiB for {model.context_length} tokens of context and {figures['adapters_gib']} GiB "
        f"for adapters; {gpu} has {figures['available_gib']} GiB for them.",
        param="model",
        troubleshooting=figures,
    )


def _gib(n_bytes: float) -> float:
    return round(n_bytes / GIB, 2)


@dataclass(frozen=True)
class Shape:
    """What a transformer's size follows from."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    window: int | None
    layer_types: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Raises KeyError, TypeError, ValueError for a config that says it in another way."""
        text = config.get("text_config") or config
        if text.get("kv_lora_rank"):
            raise ValueError("its cache is compressed")
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        return cls(
            layers=int(text["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_size=int(text.get("head_dim") or hidden // heads),
            window=text.get("sliding_window"),
            layer_types=tuple(text.get("layer_types") or ()),
        )

    def cache_values(self, layer: int, context_length: int) -> int:
        """Keys and values of one layer; one that sees a window only keeps no more."""
        slides = layer < len(self.layer_types) and self.layer_types[layer] == "sliding_attention"
        tokens = min(context_length, self.window) if slides and self.window else context_length
        return 2 * tokens * self.kv_heads * self.head_size

    @property
    def lora_values_per_rank(self) -> int:
        """Of one layer with an adapter on each of its matrices: q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = (self.hidden + q) + 2 * (self.hidden + kv) + (q + self.hidden)
        return attention + 3 * (self.hidden + self.intermediate)
