"""The loss on what is to be learned: summed, so that the caller decides over how many tokens it is a mean."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from workers.attention import is_packing
from workers.batches import Inputs, Microbatch, count_loss_tokens, filled, pack, pad
from workers.chat_data import IGNORED
from workers.head import Head
from workers.liger import fused_loss, has_liger
from workers.precision import precision_of
from workers.trained import Trained, base_of
from workers.world import World

SUM_LOSS = "sum_loss"  # a method of a model whose weights are shared out: they are gathered for it
CHUNK_LOGITS = 1 << 25  # as many are held at once, four bytes each, however many tokens are learned


def summed_loss(model: Trained, batch: Microbatch) -> tuple[torch.Tensor, int]:
    """Loss summed over the tokens to learn, and how many of them came first in the model's eyes."""
    base = base_of(model)
    inputs, targets = (pack if is_packing(base) else pad)(batch, model.device)  # targets: (B, T)
    with half_precision(model):
        total, n_correct = getattr(base, SUM_LOSS, partial(sum_loss, base))(inputs, targets)
    return total, int(n_correct)


def sum_loss(base: PreTrainedModel, inputs: Inputs, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    is_learned = targets != IGNORED
    hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state  # (B, T, D)
    return loss_of(hidden[is_learned], targets[is_learned], Head.of(base))


def loss_of(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    if not len(targets):  # a rank that has no more rows takes part all the same
        return hidden.sum() * 0.0 + head.weight.sum() * 0.0, targets.sum()
    if has_liger(hidden.device):
        return fused_loss(hidden, targets, head)
    at_once = max(1, CHUNK_LOGITS // head.weight.shape[0])
    told: tuple[torch.Tensor, torch.Tensor] = ChunkedLoss.apply(hidden, head.weight, targets, head, at_once)
    return told


def half_precision(model: Trained) -> AbstractContextManager[Any]:
    device = model.device.type
    has_it = precision_of(device) is torch.bfloat16
    precision: AbstractContextManager[Any] = torch.autocast(device, torch.bfloat16, enabled=has_it)
    return precision


class ChunkedLoss(torch.autograd.Function):  # type: ignore[misc]
    """Each chunk's gradient is taken while its logits are there, so that all of them never are.

    The head's own is taken where it learns, as in a full fine-tune; LoRA leaves it alone.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, head: Head, at_once: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        learns = hidden.requires_grad  # (K, D); not so while validating
        total, n_correct = hidden.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        of_hidden: list[torch.Tensor] = []
        of_weight = torch.zeros_like(weight) if learns and weight.requires_grad else None
        for part, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
            with torch.set_grad_enabled(learns):
                states = part.detach().requires_grad_(learns)
                own = weight.detach().requires_grad_(of_weight is not None)
                logits = head.logits(states, own)  # (chunk, V)
                loss = cross_entropy(logits, wanted, reduction="sum")
            if of_weight is not None:
                of_states, of_own = torch.autograd.grad(loss, (states, own))
                of_weight += of_own
                of_hidden.append(of_states)
            elif learns:
                of_hidden += torch.autograd.grad(loss, states)
            total += loss.detach()
            n_correct += (logits.argmax(-1) == wanted).sum()
        if learns:
            ctx.save_for_backward(torch.cat(of_hidden), of_weight)
        return total, n_correct

    @staticmethod
    def backward(ctx: Any, *of: Any) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * of[0], None if of_weight is None else of_weight * of[0], None, None, None


def validate(model: Trained, batches: list[Microbatch], world: World) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        mine = filled(batches[world.rank :: world.size], -(-len(batches) // world.size))
        told = [summed_loss(model, batch) for batch in mine]
    model.train()
    total, n_correct = world.sums(sum(loss.item() for loss, _ in told), sum(correct for _, correct in told))
    n_learned = sum(map(count_loss_tokens, batches))
    return {"valid_loss": total / n_learned, "valid_mean_token_accuracy": n_correct / n_learned}
