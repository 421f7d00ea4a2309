"""What the training benchmark tells of its runs, and what it trains on."""

import pytest

from bench.sft.rows import ragged_chats
from bench.sft.sides import Trained


def test_the_loss_of_a_share_of_the_run_is_by_tokens_not_by_steps() -> None:
    trained = Trained(1.0, 1, [(10, 4.0), (40, 2.0), (80, 1.0)])
    assert trained.loss_between(0, 0.5) == pytest.approx((10 * 4 + 30 * 2) / 40)
    assert trained.loss_between(0.5, 1) == 1.0


def test_rows_are_the_same_for_a_seed_and_mostly_short() -> None:
    rows = list(ragged_chats(["One two."], 200, seed=1))
    assert rows == list(ragged_chats(["One two."], 200, seed=1))
    lengths = sorted(len(row["messages"][1]["content"]) for row in rows)
    assert lengths[-1] >= 4 * lengths[len(lengths) // 2]
