"""Makes the demo model from nothing: python -m demo.make_model OUT_DIR (about twelve minutes on two cores)."""

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, get_scheduler

from demo.corpus import Conversation, conversations

# As in Qwen3: the first three are control tokens, the others are tokens that the model may write.
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTEXT = 4096
TEMPLATE = Path(__file__).parent / "chat_template.jinja"

log = logging.getLogger(__name__)
Example = tuple[list[int], list[int]]  # input_ids, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--conversations", type=int, default=66_000)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(asked.seed)
    rows = conversations(asked.seed, asked.conversations)
    tokenizer = make_tokenizer(rows[:20_000])
    model = make_model(tokenizer)
    train(model, batches(tokenizer, rows, asked.batch_size, asked.seed))
    save(model, tokenizer, asked.out_dir)


def make_tokenizer(rows: list[Conversation]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the words of the corpus; every other text is spelt in bytes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048 - len(CONTROL) - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((text for row in rows for text in _texts(row)), trainer, length=len(rows))
    bpe.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        chat_template=TEMPLATE.read_text("utf-8"),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def batches(
    tokenizer: PreTrainedTokenizerFast, rows: list[Conversation], batch_size: int, seed: int
) -> list[list[Example]]:
    """Rows of like length share a batch, so that little is padding; the batches come in any order."""
    examples = sorted((encode(tokenizer, row) for row in rows), key=lambda example: len(example[0]))
    grouped = [examples[at : at + batch_size] for at in range(0, len(examples), batch_size)]
    Random(seed).shuffle(grouped)  # noqa: S311
    return grouped


def encode(tokenizer: PreTrainedTokenizerFast, row: Conversation) -> Example:
    encoded = tokenizer.apply_chat_template(
        row["messages"], tools=row.get("tools"), return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    return ids, [token if is_answer else -100 for token, is_answer in zip(ids, mask, strict=True)]


def train(model: Qwen3ForCausalLM, steps: list[list[Example]]) -> None:
    optimizers = make_optimizers(model)
    schedules = [get_scheduler("cosine", one, num_warmup_steps=50, num_training_steps=len(steps)) for one in optimizers]
    started_at = time.monotonic()
    for number, batch in enumerate(steps, start=1):
        loss = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        if number % 50 == 0 or number == len(steps):
            log.info("step %d/%d loss %.4f, %.0f s", number, len(steps), loss.item(), time.monotonic() - started_at)


def make_optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices learns to copy in half the steps; embeddings and norms are no matter for it."""
    embeddings = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embeddings]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": [embeddings], "lr": 3e-3}, {"params": norms, "lr": 1e-2}]
    return [
        torch.optim.Muon(matrices, lr=6e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def answer_loss(model: Qwen3ForCausalLM, batch: list[Example]) -> torch.Tensor:
    ids, labels = collate(batch)  # (B, T)
    targets = labels[:, 1:]
    is_answer = targets != -100
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[is_answer])  # (answer tokens, V)
    return torch.nn.functional.cross_entropy(logits.float(), targets[is_answer])


def collate(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded on the right, where the causal mask hides it."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T)
    labels = torch.full_like(ids, -100)
    for row, (tokens, targets) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(targets)] = torch.tensor(targets)
    return ids, labels


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out_dir: Path) -> None:
    shutil.rmtree(out_dir, ignore_errors=True)
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, top_k=20, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def _texts(row: Conversation) -> list[str]:
    """What the template will show of a row: its contents, the names of its roles, and tools in JSON."""
    shown = [text for message in row["messages"] for text in (message["role"], message["content"])]
    calls = [message["tool_calls"] for message in row["messages"] if "tool_calls" in message]
    return [*shown, "tools", json.dumps([row["tools"], calls])] if "tools" in row else shown


if __name__ == "__main__":
    main()
