"""A model that no engine can start: a copy of the demo's, whose weights end too early."""

import shutil
from pathlib import Path

import yaml

from app.settings import ROOT

CORRUPT = "test/corrupt"


def catalog_with_corrupt(folder: Path) -> Path:
    """What is shipped, and this one; written to the folder."""
    demo = ROOT / "demo" / "model"
    shutil.copytree(demo, folder / "corrupt")
    weights = folder / "corrupt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    shipped = yaml.safe_load((ROOT / "models.yaml").read_text())
    [model] = [model for model in shipped["models"] if model["id"] == "loam/demo"]
    model["weights"] = str(demo)
    models = [*shipped["models"], {**model, "id": CORRUPT, "weights": str(folder / "corrupt")}]
    (folder / "models.yaml").write_text(yaml.safe_dump({**shipped, "models": models}))
    return folder / "models.yaml"
