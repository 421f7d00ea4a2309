"""The loss on what is to be learned: summed, so that the caller decides over how many tokens it is a mean."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from workers.attention import is_packing
from workers.batches import Microbatch, count_loss_tokens, pack, pad
from workers.chat_data import IGNORED
from workers.world import World

CHUNK_LOGITS = 1 << 25  # as many are held at once, four bytes each, however many tokens are learned

Score = Callable[[torch.Tensor], torch.Tensor]


def summed_loss(model: PeftModel, batch: Microbatch) -> tuple[torch.Tensor, int]:
    """Loss summed over the tokens to learn, and how many of them came first in the model's eyes."""
    base = model.get_base_model()
    inputs, targets = (pack if is_packing(base) else pad)(batch, model.device)  # targets: (B, T)
    is_learned = targets != IGNORED
    with half_precision(model):
        hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state  # (B, T, D)
        at_once = max(1, CHUNK_LOGITS // base.get_output_embeddings().weight.shape[0])
        total, n_correct = ChunkedLoss.apply(hidden[is_learned], targets[is_learned], score_of(base), at_once)
    return total, int(n_correct)


def half_precision(model: PeftModel) -> AbstractContextManager[Any]:
    device = model.device.type
    precision: AbstractContextManager[Any] = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
    return precision


def score_of(base: PreTrainedModel) -> Score:
    """From the last hidden states to logits, as the model's own forward pass has it."""
    head, config = base.get_output_embeddings(), base.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1.0)

    def score(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden).float() * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    return score


class ChunkedLoss(torch.autograd.Function):  # type: ignore[misc]
    """Each chunk's gradient is taken while its logits are there, so that all of them never are.

    The head itself is frozen: LoRA leaves it alone.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, score: Score, at_once: int
    ) -> tuple[torch.Tensor, int]:
        learns = hidden.requires_grad  # (K, D); not so while validating
        total, n_correct = hidden.new_zeros((), dtype=torch.float32), 0
        gradients: list[torch.Tensor] = []
        for part, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
            with torch.set_grad_enabled(learns):
                states = part.detach().requires_grad_(learns)
                logits = score(states)  # (chunk, V)
                loss = cross_entropy(logits, wanted, reduction="sum")
            gradients += torch.autograd.grad(loss, states) if learns else ()
            total += loss.detach()
            n_correct += (logits.argmax(-1) == wanted).sum()
        if learns:
            ctx.save_for_backward(torch.cat(gradients))
        return total, n_correct

    @staticmethod
    def backward(ctx: Any, *of: Any) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * of[0], None, None, None


def validate(model: PeftModel, batches: list[Microbatch], world: World) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        told = [summed_loss(model, batch) for batch in batches[world.rank :: world.size]]
    model.train()
    total, n_correct = world.sums(sum(loss.item() for loss, _ in told), sum(correct for _, correct in told))
    n_learned = sum(map(count_loss_tokens, batches))
    return {"valid_loss": total / n_learned, "valid_mean_token_accuracy": n_correct / n_learned}
