"""Every method on tiny models, as `test_distributed.py` runs it: in one process, or as a program in several.

`python two_processes.py FOLDER METHOD ...` trains each method, with its checkpoints in FOLDER/METHOD, and then once
more from the second checkpoint of a run in one process, which lies in one/METHOD beside FOLDER. Each process writes
what it found to FOLDER/PROCESS.json.
With KILL=step in the environment the second process ends itself there, as a kernel without memory would end it.
"""

import copy
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import tiny_llama
from peft import LoraConfig, get_peft_model
from transformers import LlamaForSequenceClassification

from course_lib import (
    GroupConfig,
    GroupTrainer,
    KTOConfig,
    KTOTrainer,
    PPOConfig,
    PPOTrainer,
    PreferenceConfig,
    PreferenceTrainer,
    RewardTrainer,
    SFTTrainer,
)
from course_lib.rewards import learned_reward
from course_lib.trainers import OnlinePreferenceConfig, OnlinePreferenceTrainer, Part, TrainingConfig
from course_lib.trainers.sharded import weight_here
from course_lib.world import build_tokenizer, preference_records, prompts, sft_records, unpaired_records

TOKENIZER = build_tokenizer()
SETTINGS = {"batch_size": 8, "accumulation": 2, "learning_rate": 3e-3, "max_grad_norm": 0.5, "progress": False,
            "log_every": 1, "epochs": 1}  # fmt: skip
ONLINE = SETTINGS | {"prompts_per_rollout": 5, "max_new_tokens": 6, "update_epochs": 2, "batch_size": 5}
ONE_PAIR_A_STEP = {"completions": 3, "batch_size": 1, "accumulation": 1, "update_epochs": 1}  # and none for the second
ASKED = [{"prompt": prompt} for prompt in prompts("test", 10)]


def policy():
    return tiny_llama(len(TOKENIZER))


def with_adapters():
    torch.manual_seed(0)
    return get_peft_model(policy(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def reward_model():
    config = copy.deepcopy(policy().config)
    config.num_labels = 1
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config)


def early(asked, replies):
    """The share of words that begin before the letter n."""
    words = [reply[0]["content"].split() or ["z"] for reply in replies]
    return torch.tensor([sum(word < "n" for word in reply) / len(reply) for reply in words])


def pairs(model, reference="auto", **changes):
    return PreferenceTrainer(
        model, TOKENIZER, preference_records(27), PreferenceConfig(**SETTINGS | {"eval_every": 2} | changes),
        reference=reference, eval_records=preference_records(9, seed=1),
    )  # fmt: skip


def rewarded(kind, config, reward=early, **changes):
    """A method on its own samples: three and two prompts a process, and one held-out prompt for both."""
    options = {"reference": "copy"} if kind is OnlinePreferenceTrainer else {}
    settings = ONLINE | changes
    return kind(policy(), TOKENIZER, ASKED, config(**settings), reward=reward, eval_records=ASKED[:1], **options)


METHODS = {  # 27 records make batches of 7 and 6, which two processes and two micro-batches cut unevenly
    "sft": lambda **s: SFTTrainer(
        policy(), TOKENIZER, sft_records(27), TrainingConfig(**SETTINGS | s), eval_records=sft_records(1, seed=1)
    ),
    "reward": lambda **s: RewardTrainer(
        reward_model(), TOKENIZER, preference_records(27), TrainingConfig(**SETTINGS | s)
    ),
    "dpo": lambda **s: pairs(policy(), **s),
    "dpo, a copy": lambda **s: pairs(policy(), "copy", **s),
    "dpo, adapters": lambda **s: pairs(with_adapters(), **s),
    "kto": lambda **s: KTOTrainer(
        policy(), TOKENIZER, unpaired_records(32), KTOConfig(**SETTINGS | {"accumulation": 1} | s)
    ),
    "ppo": lambda **s: rewarded(PPOTrainer, PPOConfig, **s),
    "ppo, shared critic": lambda **s: rewarded(PPOTrainer, PPOConfig, **{"critic": "shared"} | s),
    "ppo, a reward model": lambda **s: rewarded(
        PPOTrainer, PPOConfig, learned_reward(reward_model().eval(), TOKENIZER), **s
    ),
    "grpo": lambda **s: rewarded(GroupTrainer, GroupConfig, **{"completions": 3, "batch_size": 8} | s),
    "online dpo": lambda **s: rewarded(OnlinePreferenceTrainer, OnlinePreferenceConfig, **ONE_PAIR_A_STEP | s),
}


class Kill(Part):
    def __init__(self, step):
        self.step = step

    def before_update(self, run):
        if run.step == self.step and run.accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Moments(Part):
    """How many of the policy's moments this process holds."""

    def finish(self, run):
        policy = run.models["policy"]
        if run.sharded:
            states = policy.optimizer.optimizer.state.values()
        else:
            states = [run.optimizer.state[p] for p in policy.parameters() if p.requires_grad]
        self.held = sum(value.numel() for state in states for key, value in state.items() if key.startswith("exp_avg"))


def findings(name: str, folder: Path, parts=()) -> dict:
    """A whole run's history, and how many numbers of the policy and its moments this process holds at its end."""
    trainer = METHODS[name](checkpoint_folder=folder / name, checkpoint_every=1, keep_checkpoints=99)
    moments = Moments()
    history = trainer.train(parts=[*parts, moments])
    trainer.save_pretrained(folder / f"{name}, saved")
    weights = [p for p in trainer.policy.parameters() if p.requires_grad]
    judges = [p for model in getattr(getattr(trainer, "reward", None), "models", ()) for p in model.parameters()]
    return {
        "judges": [sum(weight_here(p).numel() for p in judges), sum(getattr(p, "ds_numel", p.numel()) for p in judges)],
        "rows": history.rows,
        "weights": sum(getattr(p, "ds_numel", p.numel()) for p in weights),
        "held": sum(weight_here(p).numel() for p in weights),
        "moments": moments.held,
    }


def resumed(name: str, checkpoint: Path, folder: Path) -> list[dict]:
    """The history of a run that goes on from a checkpoint, which stays as it is."""
    shutil.copytree(checkpoint, folder / checkpoint.name, dirs_exist_ok=True)
    return METHODS[name](checkpoint_folder=folder, checkpoint_every=99).train(resume=True).rows


def main(folder: Path, methods: list[str]) -> None:
    torch.set_num_threads(1)
    found, rank = {}, int(os.environ.get("RANK", 0))
    parts = [Kill(int(os.environ["KILL"]))] if "KILL" in os.environ else []
    for name in methods:
        found[name] = findings(name, folder, parts)
        checkpoint = folder.parent / "one" / name / "step-00000002"
        if "KILL" not in os.environ:
            found[name]["resumed"] = resumed(name, checkpoint, folder / f"{name}, resumed, {rank}")
    (folder / f"{rank}.json").write_text(json.dumps(found))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
