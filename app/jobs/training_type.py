"""What a job trains: an adapter, as of every trainable model, or all weights, where the catalog permits it."""

from app.catalog.names import FULL
from app.catalog.resolve import AdapterRef
from app.catalog.spec import Catalog, ModelSpec
from app.errors import BadRequest

SFT = "sft"


class NotPermitted(BadRequest):
    code = "training_type_not_permitted"


def require_permitted(catalog: Catalog, spec: ModelSpec, training_type: str) -> None:
    """Raises NotPermitted, with what is permitted."""
    if training_type != FULL or spec.full_fine_tune:
        return
    permitting = ", ".join(model.id for model in catalog.models if model.full_fine_tune)
    raise NotPermitted(
        f"{spec.id} can be trained with training_type sft (LoRA) here, not with full; "
        + (f"full is permitted for {permitting}." if permitting else "full is permitted for no model of this server."),
        param="training_type",
    )


def require_continuable(tuned: AdapterRef | None, name: str, training_type: str) -> None:
    """Raises BadRequest: a fine-tune is continued as it was begun."""
    if tuned is None or (tuned.own_name is not None) == (training_type == FULL):
        return
    began = SFT if training_type == FULL else FULL
    raise BadRequest(f"{name} was trained with training_type {began}; it is continued with the same.", param="model")
