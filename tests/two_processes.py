"""Run by `test_distributed.py` under torchrun: runs shared by two processes on the CPU."""

import contextlib
import copy
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from conftest import tiny_llama
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForSequenceClassification

from course_lib import PreferenceConfig, PreferenceTrainer, RewardTrainer, SFTTrainer
from course_lib.trainers import Part, TrainingConfig
from course_lib.world import build_tokenizer, preference_records, sft_records

torch.set_num_threads(1)
state, folder = PartialState(cpu=True), Path(sys.argv[1])
tokenizer = build_tokenizer()
QUIET = {"batch_size": 8, "learning_rate": 1e-3, "progress": False, "log_every": 1}


def same(model) -> bool:
    """Whether both processes hold the same weights."""
    mine = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.zeros_like(mine) for _ in range(2)]
    dist.all_gather(both, mine)
    return torch.equal(*both)


def dpo() -> dict:
    trainer = PreferenceTrainer(
        tiny_llama(len(tokenizer)), tokenizer, preference_records(40), PreferenceConfig(**QUIET)
    )
    history = trainer.train()
    return {"steps": len(history.rows), "first_loss": history.rows[0]["loss"], "same": same(trainer.policy)}


def reward() -> dict:
    config = copy.deepcopy(tiny_llama(len(tokenizer)).config)
    config.num_labels = 1
    torch.manual_seed(0)
    trainer = RewardTrainer(
        LlamaForSequenceClassification(config), tokenizer, preference_records(32), TrainingConfig(**QUIET)
    )
    before = copy.deepcopy(trainer.policy)
    trainer.train()
    moved = not torch.equal(before.score.weight, trainer.policy.score.weight)
    return {"same": same(trainer.policy), "moved": moved}


class Die(Part):
    def before_update(self, run):
        if run.step == 3:
            raise KeyboardInterrupt


def resumed() -> dict:
    """A run with dropout, which each process draws for itself: whole, and in two pieces."""

    def trainer(**changes):
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
        return SFTTrainer(model, tokenizer, sft_records(64), TrainingConfig(**QUIET | {"epochs": 2} | changes))

    whole, pieces = trainer(), {"checkpoint_folder": folder / "checkpoints", "checkpoint_every": 2}
    whole.train()
    with contextlib.suppress(KeyboardInterrupt):
        trainer(**pieces).train(parts=[Die()])
    again = trainer(**pieces)
    again.train(resume=True)
    weights = [torch.cat([p.detach().flatten() for p in t.policy.parameters()]) for t in (whole, again)]
    return {"equal": torch.equal(*weights), "same": same(again.policy)}


result = {"dpo": dpo(), "reward": reward(), "resumed": resumed()}
if state.is_main_process:
    (folder / "result.json").write_text(json.dumps(result))
dist.destroy_process_group()
