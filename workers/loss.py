"""The loss on what is to be learned: summed, so that the caller decides over how many tokens it is a mean."""

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from workers.batches import Microbatch, count_loss_tokens, pack, pad
from workers.chat_data import IGNORED


def summed_loss(model: PeftModel, batch: Microbatch, *, packing: bool) -> tuple[torch.Tensor, int]:
    """Loss summed over the tokens to learn, and how many of them came first in the model's eyes."""
    inputs, targets = (pack if packing else pad)(batch, model.device)
    at = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)  # (K,): logits of the vocabulary only where needed
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        # With a cache, transformers would not see that packed rows are several.
        logits = model(**inputs, logits_to_keep=at, use_cache=False).logits.float()  # (B, K, V)
    targets = targets[:, at]  # (B, K)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return loss, int((logits.argmax(-1) == targets).sum())


def validate(model: PeftModel, batches: list[Microbatch], *, packing: bool) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        losses, correct = zip(*(summed_loss(model, batch, packing=packing) for batch in batches), strict=True)
    model.train()
    n_learned = sum(map(count_loss_tokens, batches))
    return {
        "valid_loss": sum(loss.item() for loss in losses) / n_learned,
        "valid_mean_token_accuracy": sum(correct) / n_learned,
    }
