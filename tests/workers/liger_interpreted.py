"""Liger's fused loss beside ours on a CPU: TRITON_INTERPRET=1 python -m tests.workers.liger_interpreted FAMILY…"""

import sys

import torch
from torch.testing import assert_close

from tests.workers.test_loss import FAMILIES, TINY, tiny
from workers.head import Head
from workers.liger import fused_loss
from workers.loss import loss_of

Told = list[torch.Tensor]


def learned(family: str, *, fused: bool) -> Told:
    """The loss, the right guesses, and the gradients of the states and of the head."""
    head = Head.of(tiny(family, FAMILIES[family]))
    targets = torch.arange(3, 20)
    hidden = torch.randn(17, TINY["hidden_size"], generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss, n_correct = (fused_loss if fused else loss_of)(hidden, targets, head)
    (loss / 3).backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    return [loss, n_correct, hidden.grad, head.weight.grad]


def main(families: list[str]) -> None:
    for family in families:
        assert_close(learned(family, fused=True), learned(family, fused=False), rtol=1e-4, atol=1e-5)
        sys.stdout.write(f"{family}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
