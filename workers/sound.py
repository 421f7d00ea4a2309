"""Whether what was trained is fit to be kept: numbers, that is, and other ones than before.

What is no number spoils the engine that computes with it, for others too; so no checkpoint and no adapter has any.
"""

import math
from pathlib import Path

import torch

from workers.batches import Microbatch
from workers.loss import validate
from workers.run_state import Run
from workers.sft_config import Config
from workers.sft_errors import TrainingError
from workers.sharding import number_of
from workers.trained import weights_in

NEW = "lora_B"  # begins at zero, and so does what an adapter adds


def require_numbers(step: int, *figures: float) -> None:
    """Raises TrainingError."""
    if not all(map(math.isfinite, figures)):
        raise TrainingError(
            "loss_not_finite", f"Step {step}: the loss or its gradient is no number; try a lower learning_rate."
        )


def require_sound(run: Run, rows: Microbatch) -> None:
    """Of weights as they are now, which no loss has shown yet. All ranks ask at once. Raises TrainingError."""
    norm = torch.nn.utils.get_total_norm([p.detach() for p in run.parameters])
    require_numbers(run.step, number_of(norm), validate(run.model, [rows], run.world)["valid_loss"])


def require_change(folder: Path, config: Config) -> None:
    """Of what is to be published, beside what the run began with. Raises TrainingError."""
    learned, origin = weights_in(folder, config), origin_of(config)
    if origin:
        before = weights_in(origin, config)
        has_changed = any(not weight.equal(before[name]) for name, weight in learned.items())
    else:
        has_changed = any(weight.any() for name, weight in learned.items() if NEW in name)
    if not has_changed:
        raise TrainingError(
            "adapter_changes_nothing",
            "Training has changed nothing: learning_rate was too low, or all steps were warmup; raise the one, "
            "or lower warmup_ratio.",
        )


def origin_of(config: Config) -> Path | None:
    """The folder that a run begins with; none for a new adapter."""
    return config.init_adapter or (Path(config.model_path) if config.is_full else None)
