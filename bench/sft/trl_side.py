"""TRL's SFTTrainer on the same run folder, in TRL's own environment: config.json in, metrics.jsonl out as our recipe's.

Runs where Loam is not installed, so it imports nothing of it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Told(TrainerCallback):  # type: ignore[misc]
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **fields: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "at": time.time(), **fields}) + "\n")

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.write("started")

    def on_log(self, _: Any, state: Any, *__: Any, logs: dict[str, Any], **___: Any) -> None:
        if "loss" in logs:
            tokens = int(logs["num_tokens"])
            self.write("step", step=state.global_step, train_loss=float(logs["loss"]), trained_tokens=tokens)


def main(run_dir: Path) -> None:
    config = json.loads((run_dir / "config.json").read_bytes())
    asked, more = config["hyperparameters"], config["trl"]
    arguments = SFTConfig(
        output_dir=str(run_dir / "trl"),
        use_cpu=config["device"] == "cpu",
        bf16=config["device"] == "cuda",
        seed=config["seed"],
        num_train_epochs=asked["n_epochs"],
        per_device_train_batch_size=asked["batch_size"],
        gradient_accumulation_steps=asked["gradient_accumulation_steps"],
        learning_rate=asked["learning_rate"],
        lr_scheduler_type=asked["lr_scheduler_type"],
        warmup_steps=asked["warmup_ratio"],  # below 1 it is a share
        weight_decay=asked["weight_decay"],
        max_grad_norm=asked["max_grad_norm"],
        max_length=asked["max_seq_length"],
        gradient_checkpointing=asked["gradient_checkpointing"],
        assistant_only_loss=not asked["train_on_inputs"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=config["device"] == "cuda",
        **more,
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=asked["lora_r"],
        lora_alpha=asked["lora_alpha"],
        lora_dropout=asked["lora_dropout"],
        target_modules=asked["lora_target_modules"],
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(config["model_path"], dtype=torch.float32),
        args=arguments,
        train_dataset=load_dataset("json", data_files=config["training_file"], split="train", cache_dir=run_dir / "hf"),
        processing_class=AutoTokenizer.from_pretrained(config["model_path"]),
        peft_config=lora,
        callbacks=[Told(run_dir / "metrics.jsonl")],
    )
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
