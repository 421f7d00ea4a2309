"""What a model makes of its last hidden states: logits, scaled and capped as its own forward pass has them."""

from dataclasses import dataclass

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    weight: torch.Tensor  # (V, D)
    bias: torch.Tensor | None
    scale: float
    cap: float | None

    @classmethod
    def of(cls, base: PreTrainedModel) -> "Head":
        layer, config = base.get_output_embeddings(), base.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1.0)
        return cls(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None))

    def logits(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = linear(hidden, weight, self.bias).float() * self.scale
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits
