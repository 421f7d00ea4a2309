"""Who else is told what a job's training measures: Weights & Biases, where its library is installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from app.errors import BadRequest

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f/\\#?%:]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
Tag = Annotated[Text, StringConstraints(max_length=64)]


class Wandb(BaseModel):
    project: Name
    entity: Name | None = None
    name: Text | None = None
    tags: Annotated[list[Tag], Field(max_length=50)] | None = None


class Integration(BaseModel):
    type: Literal["wandb"]
    wandb: Wandb


class NotInstalled(BadRequest):
    code = "integration_not_installed"


def require_installed(asked: Sequence[Integration]) -> None:
    """Here, that is: the worker has the same environment, unless somebody sees to it. Raises NotInstalled."""
    if asked and find_spec("wandb") is None:
        raise NotInstalled(
            "integrations: Weights & Biases is not installed on this server; `pip install 'loam[wandb]'` adds it.",
            param="integrations",
        )
