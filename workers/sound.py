"""Whether what was trained is fit to be kept: numbers, that is, and other ones than before.

What is no number spoils the engine that computes with it, for others too; so no checkpoint and no adapter has any.
"""

import math

from peft import PeftModel

from workers.batches import Microbatch
from workers.loss import validate
from workers.run_state import Run
from workers.sft_errors import TrainingError

NEW = "lora_B"  # begins at zero, and so does what an adapter adds


def require_numbers(step: int, *figures: float) -> None:
    """Raises TrainingError."""
    if not all(map(math.isfinite, figures)):
        raise TrainingError(
            "loss_not_finite", f"Step {step}: the loss or its gradient is no number; try a lower learning_rate."
        )


def require_sound(run: Run, rows: Microbatch) -> None:
    """Of weights as they are now, which no loss has shown yet. Raises TrainingError."""
    require_numbers(run.step, *(float(p.detach().abs().max()) for p in run.parameters))
    require_numbers(run.step, validate(run.model, [rows])["valid_loss"])


def require_change(model: PeftModel) -> None:
    """Raises TrainingError."""
    new = [p for name, p in model.named_parameters() if NEW in name]
    if new and not any(p.detach().any() for p in new):
        raise TrainingError(
            "adapter_changes_nothing",
            "Training has changed nothing: learning_rate was too low, or all steps were warmup; raise the one, "
            "or lower warmup_ratio.",
        )
