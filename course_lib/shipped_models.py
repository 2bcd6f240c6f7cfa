"""How the shipped models are made: `python -m course_lib.shipped_models --out FOLDER --seed 0`.

Base: a four-layer Llama pre-trained on the world's plain text. SFT: demonstrations with their bad habits.
Reward: Bradley-Terry on 12,000 pairs, twice. Pre-training took 256 seconds on two cores, SFT and reward model 226 and
219 seconds on one core beside another process.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from course_lib.models import load_reward_model, save_pretrained
from course_lib.trainers import RewardTrainer, SFTTrainer, TrainingConfig
from course_lib.world import build_tokenizer, documents, preference_records, sft_records

PRETRAINING = TrainingConfig(
    learning_rate=6e-3, batch_size=64, schedule="cosine", warmup_ratio=0.05, adam_betas=(0.9, 0.98), log_every=50
)
SFT = TrainingConfig(learning_rate=2e-3, batch_size=32, schedule="cosine", log_every=20)
REWARD = TrainingConfig(learning_rate=3e-3, batch_size=64, epochs=2, schedule="cosine", log_every=50)
SIZES = {"documents": 62_000, "demonstrations": 36_000, "pairs": 12_000}


def new_base(tokenizer, seed: int) -> LlamaForCausalLM:
    """An untrained model of about 0.9 million parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def train_base(seed: int = 0, *, size: int = SIZES["documents"], progress: bool = True):
    """Pre-train from nothing on `size` documents; returns `(model, tokenizer)`."""
    tokenizer = build_tokenizer()
    model = new_base(tokenizer, seed)
    rows = [{"text": text} for text in documents(size, seed=seed)]
    _train(SFTTrainer, model, tokenizer, rows, PRETRAINING, seed, progress)
    return model, tokenizer


def train_sft(
    model,
    tokenizer,
    seed: int = 0,
    *,
    size: int = SIZES["demonstrations"],
    text_share: float = 0.2,
    progress: bool = True,
):
    """Fine-tune a base model in place on `size` records, of which `text_share` are plain text."""
    records = sft_records(size, seed=seed, text_share=text_share)
    _train(SFTTrainer, model, tokenizer, records, SFT, seed, progress)
    return model


def train_reward(
    sft_folder,
    seed: int = 0,
    *,
    size: int = SIZES["pairs"],
    pairs_seed: int | None = None,
    progress: bool = True,
    **annotators,
):
    """Fit a reward model, begun from an SFT checkpoint, to `size` pairs.

    `pairs_seed` draws others than usual; `annotators` are the knobs of the people who label them.
    """
    torch.manual_seed(seed)
    model, tokenizer = load_reward_model(str(sft_folder))
    pairs = preference_records(size, seed=seed + 1000 if pairs_seed is None else pairs_seed, **annotators)
    _train(RewardTrainer, model, tokenizer, pairs, REWARD, seed, progress)
    return model


def _train(trainer, model, tokenizer, records, config: TrainingConfig, seed: int, progress: bool):
    return trainer(model, tokenizer, records, replace(config, seed=seed, progress=progress)).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, tokenizer = train_base(options.seed)
    save_pretrained(model, tokenizer, options.out / "base")
    train_sft(model, tokenizer, options.seed)
    save_pretrained(model, tokenizer, options.out / "sft")
    reward = train_reward(options.out / "sft", options.seed)
    save_pretrained(reward, tokenizer, options.out / "reward")


if __name__ == "__main__":
    main()
