"""An adapter merged into its base: python -m workers.merge BASE ADAPTER FOLDER fills FOLDER with whole weights.

A model that transformers and vLLM load as it is. Exit code 1: the last line on stderr says why.
"""

import shutil
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

# What PEFT says of a base or an adapter that do not go together is a RuntimeError or a ValueError.
FORESEEN = (OSError, SafetensorError, RuntimeError, ValueError, KeyError)
TEMPLATE = "chat_template.jinja"


class NoRoom(Exception):
    """The message says how much is missing."""


def merge(base: str, adapter: Path, folder: Path) -> None:
    # In the precision that the base is published in: what is served afterwards is no larger than it was.
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
    require_room(model, folder)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    if (adapter / TEMPLATE).exists():
        shutil.copyfile(adapter / TEMPLATE, folder / TEMPLATE)


def require_room(model: PreTrainedModel, folder: Path) -> None:
    """Before the work, not after it. Raises NoRoom."""
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoom(f"The disk is full: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free.")


def main(base: str, adapter: Path, folder: Path) -> int:
    try:
        with torch.inference_mode():
            merge(base, adapter, folder)
    except NoRoom as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except FORESEEN as error:
        told = " ".join(str(error).split())
        sys.stderr.write(f"{adapter.name} could not be merged into {base}: {told[:400]}\n")
        return 1
    return 0


if __name__ == "__main__":
    disable_progress_bar()
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
