"""What a GPU says beside `estimate_memory`, on a random 0.5B-shaped model. Writes results/memory_on_gpu.json.

python benchmarks/memory_on_gpu.py     needs a GPU with about 24 GB

Each setting runs in a process of its own; the figure is `torch.cuda.max_memory_allocated` over two optimiser steps of
one of the course's trainers, model and reference included. Rows have one length, so that no padding needs a mask.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from course_lib import estimate_memory
from course_lib.trainers import KTOTrainer, PreferenceTrainer, RewardTrainer, SFTTrainer

RESULTS = Path(__file__).parent / "results" / "memory_on_gpu.json"
VOCABULARY = 151_936
TRAINERS = {"sft": SFTTrainer, "kto": KTOTrainer, "reward": RewardTrainer}
LORA = {"lora_rank": 16}
SETTINGS = [  # algorithm, tokens a row, options of estimate_memory
    ("sft", 512, {}),
    ("sft", 2048, {"gradient_checkpointing": True}),
    ("sft", 1024, {"precision": "bf16"}),
    ("sft", 1024, LORA | {"precision": "bf16"}),
    ("dpo", 512, {"reference": "copy"}),
    ("dpo", 512, {"reference": "precomputed"}),
    ("dpo", 1024, {"reference": "copy", "precision": "bf16"}),
    ("dpo", 1024, LORA | {"reference": "adapter-off", "precision": "bf16"}),
    ("dpo", 512, {"reference": "copy", "precision": "autocast"}),
    ("simpo", 512, {}),
    ("kto", 512, {"reference": "copy", "reference_order": "before"}),
    ("reward", 512, {"precision": "autocast", "gradient_checkpointing": True}),
]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU that PyTorch can use, and finds none; tests/test_memory.py needs none")
    if len(sys.argv) > 1:
        print(json.dumps(measure(*SETTINGS[int(sys.argv[1])])))
        return
    rows = [in_own_process(i) for i in range(len(SETTINGS))]
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def in_own_process(index: int) -> dict:
    done = subprocess.run([sys.executable, __file__, str(index)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{SETTINGS[index]} failed:\n{done.stderr[-3000:]}")
    row = json.loads(done.stdout.splitlines()[-1])
    print(f"{row['error']:+7.2%}  {row['measured'] / 1e9:6.2f} GB  {row['algorithm']} {row['options']}")
    return row


def measure(algorithm: str, length: int, options: dict) -> dict:
    """Peak bytes on the GPU and as estimated, and their ratio less 1."""
    options = {"precision": "fp32", "optimizer": "adamw", "logits": "chunked", "batch_size": 4} | options
    options |= {"sequence_length": length, "completion_length": length // 2}
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, tie_word_embeddings=True, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    model = build(config, algorithm, options)
    torch.cuda.reset_peak_memory_stats()
    train(model, algorithm, length, options)
    measured = torch.cuda.max_memory_allocated()
    estimated = estimate_memory(config, algorithm, **options).peak
    return {"algorithm": algorithm, "options": options, "measured": measured, "estimated": estimated,
            "error": estimated / measured - 1}  # fmt: skip


def build(config, algorithm: str, options: dict):
    auto = AutoModelForSequenceClassification if algorithm == "reward" else AutoModelForCausalLM
    dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
    with torch.device("cuda"):
        model = auto.from_config(config, dtype=dtype)
        if options.get("gradient_checkpointing"):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if "lora_rank" in options:
            lora = LoraConfig(r=options["lora_rank"], target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, lora)
    return model


def train(model, algorithm: str, length: int, options: dict) -> None:
    trainer = TRAINERS.get(algorithm, PreferenceTrainer)
    config = {"batch_size": 4, "max_length": length, "progress": False}
    config["mixed_precision"] = "bf16" if options["precision"] == "autocast" else "no"
    arguments = {"reference": options["reference"]} if "reference" in options else {}
    if trainer is PreferenceTrainer:
        config["share_prompt"] = False
        arguments["loss"] = algorithm
    trainer(model, words(), records(algorithm, length), trainer.config_class(**config), **arguments).train()


def words() -> PreTrainedTokenizerFast:
    """A tokenizer for which each word is a token."""
    core = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, 4000)}, unk_token="<pad>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def records(algorithm: str, length: int) -> list[dict]:
    """Two batches of rows of one length, half of it prompt."""

    def text(start: int, count: int) -> str:
        return " ".join(f"w{2 + (start + i) % 3900}" for i in range(count))

    rows = []
    for i in range(8):
        one, other = (text(start + i, length // 2 - 1) for start in (100, 200))
        kinds = {"sft": {"completion": one}, "kto": {"completion": one, "label": i % 2 == 0}}
        prompt = {"prompt": text(i, length - length // 2) + " "}
        rows.append(prompt | kinds.get(algorithm, {"chosen": one, "rejected": other}))
    return rows


if __name__ == "__main__":
    main()
