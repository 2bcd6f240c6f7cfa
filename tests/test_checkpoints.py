"""A run that was stopped, or killed, goes on to exactly the weights of one that was not."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama
from test_trainers import QUIET, weights, with_lora
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForSequenceClassification

from course_lib import KTOConfig, KTOTrainer, PreferenceConfig, PreferenceTrainer, RewardTrainer, SFTTrainer
from course_lib.trainers import (
    GroupConfig,
    GroupTrainer,
    OnlinePreferenceConfig,
    OnlinePreferenceTrainer,
    Part,
    PPOConfig,
    PPOTrainer,
    TrainingConfig,
)
from course_lib.trainers.checkpoint import Checkpoints
from course_lib.world import preference_records, prompts, sft_records, unpaired_records

SETTINGS = QUIET | {"epochs": 2, "accumulation": 2, "log_every": 3}


class Terminate(Part):
    """Sends the process SIGTERM within a step, as a scheduler does that wants its machine back."""

    def __init__(self, step):
        self.step = step

    def before_update(self, run):
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Die(Part):
    """Ends a run before a step's update, leaving nothing but what is on disk."""

    def __init__(self, step):
        self.step = step

    def before_update(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


def dropout_model(tokenizer):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=256))


def reward_model(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    return LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=0, **sizes))


MAKE = {
    "sft, with dropout": lambda t, s: SFTTrainer(dropout_model(t), t, sft_records(32), TrainingConfig(**s)),
    "dpo": lambda t, s: PreferenceTrainer(tiny_llama(len(t)), t, preference_records(32), PreferenceConfig(**s)),
    "dpo, a copy": lambda t, s: PreferenceTrainer(
        tiny_llama(len(t)), t, preference_records(32), PreferenceConfig(**s), reference="copy"
    ),
    "dpo, adapters": lambda t, s: PreferenceTrainer(
        with_lora(tiny_llama(len(t))), t, preference_records(32), PreferenceConfig(**s)
    ),
    "simpo": lambda t, s: PreferenceTrainer(
        tiny_llama(len(t)), t, preference_records(32), PreferenceConfig(**s), loss="simpo"
    ),
    "kto": lambda t, s: KTOTrainer(tiny_llama(len(t)), t, unpaired_records(32), KTOConfig(**s)),
    "reward": lambda t, s: RewardTrainer(reward_model(t), t, preference_records(32), TrainingConfig(**s)),
}


@pytest.mark.parametrize("method", MAKE)
def test_a_resumed_run_ends_at_the_weights_of_an_uninterrupted_one(tokenizer, tmp_path, method):
    whole = MAKE[method](tokenizer, SETTINGS)
    whole.train()
    settings = SETTINGS | {"checkpoint_folder": tmp_path, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):  # after the checkpoint of step 4, in the second epoch's first batches
        MAKE[method](tokenizer, settings).train(parts=[Die(5)])
    resumed = MAKE[method](tokenizer, settings)
    resumed.train(resume=True)
    assert torch.equal(weights(resumed.policy), weights(whole.policy))
    assert resumed.history.rows == whole.history.rows


@pytest.mark.slow
@pytest.mark.parametrize("step", range(8))
def test_it_does_not_matter_where_a_run_is_stopped(tokenizer, tmp_path, step):
    whole = MAKE["dpo"](tokenizer, SETTINGS)
    whole.train()
    settings = SETTINGS | {"checkpoint_folder": tmp_path, "checkpoint_every": 100}
    MAKE["dpo"](tokenizer, settings).train(parts=[Terminate(step)])
    resumed = MAKE["dpo"](tokenizer, settings)
    resumed.train(resume=True)
    assert torch.equal(weights(resumed.policy), weights(whole.policy))


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from test_checkpoints import MAKE, SETTINGS
from course_lib.trainers import Part
from course_lib.world import build_tokenizer

class Kill(Part):
    def before_update(self, run):
        if run.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

settings = SETTINGS | dict(checkpoint_folder={folder!r}, checkpoint_every=1)
MAKE["kto"](build_tokenizer(), settings).train(parts=[Kill()])
"""


@pytest.mark.slow
def test_a_killed_process_loses_one_step(tokenizer, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, resumed = (MAKE["kto"](tokenizer, SETTINGS | folder) for folder in ({}, {"checkpoint_folder": tmp_path}))
    whole.train()
    resumed.train(resume=True)
    assert torch.equal(weights(resumed.policy), weights(whole.policy))


def checkpointed(tokenizer, folder, **changes):
    settings = SETTINGS | {"checkpoint_folder": folder, "checkpoint_every": 2} | changes
    return PreferenceTrainer(
        tiny_llama(len(tokenizer)), tokenizer, preference_records(32), PreferenceConfig(**settings)
    )


def test_only_the_newest_checkpoints_stay(tokenizer, tmp_path):
    checkpointed(tokenizer, tmp_path, keep_checkpoints=3).train()
    assert [path.name for path in Checkpoints(tmp_path).all()] == ["step-00000004", "step-00000006", "step-00000008"]


def test_checkpoints_are_safetensors_and_json_alone(tokenizer, tmp_path):
    checkpointed(tokenizer, tmp_path).train()
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty values", "no tensors"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(tokenizer, tmp_path, damage, caplog):
    whole = checkpointed(tokenizer, tmp_path)
    whole.train()
    newest = Checkpoints(tmp_path).all()[-1]
    tensors = newest / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-100] ^= 1
        tensors.write_bytes(data)
    elif damage == "no tensors":
        tensors.unlink()
    else:
        (newest / "values.json").write_text("")
    resumed = checkpointed(tokenizer, tmp_path)
    resumed.train(resume=True)
    assert "damaged" in caplog.text and torch.equal(weights(resumed.policy), weights(whole.policy))


def test_a_half_written_checkpoint_is_never_seen(tokenizer, tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.write(1, {"a": torch.ones(2)})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", full_disk)
    with pytest.raises(OSError, match="No space"):
        store.write(2, {"a": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tokenizer, tmp_path, monkeypatch, caplog):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("course_lib.trainers.checkpoint.save_file", full_disk)
    history = checkpointed(tokenizer, tmp_path).train()
    assert history.rows[-1]["step"] == 8 and "No space left" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_before_training(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    trainer = checkpointed(tokenizer, tmp_path / "file")
    before = weights(trainer.policy).clone()
    with pytest.raises(OSError, match="choose another folder"):
        trainer.train()
    assert torch.equal(weights(trainer.policy), before)


def test_resuming_other_settings_or_records_is_refused_with_what_changed(tokenizer, tmp_path):
    checkpointed(tokenizer, tmp_path).train()
    with pytest.raises(ValueError, match="learning_rate was 0.001 and is 0.002"):
        checkpointed(tokenizer, tmp_path, learning_rate=2e-3).train(resume=True)
    other = PreferenceTrainer(
        tiny_llama(len(tokenizer)),
        tokenizer,
        preference_records(32, seed=1),
        checkpointed(tokenizer, tmp_path).config,
    )
    with pytest.raises(ValueError, match="records was"):
        other.train(resume=True)


def test_resuming_without_a_folder_says_what_is_missing(tokenizer):
    with pytest.raises(ValueError, match="set checkpoint_folder"):
        checkpointed(tokenizer, None).train(resume=True)


def test_resuming_where_nothing_was_saved_begins(tokenizer, tmp_path):
    assert len(checkpointed(tokenizer, tmp_path).train(resume=True).rows) > 1


def test_a_run_resumed_after_its_end_changes_nothing(tokenizer, tmp_path):
    trainer = checkpointed(tokenizer, tmp_path)
    trainer.train()
    end = copy.deepcopy(trainer.policy)
    assert torch.equal(weights(trainer.policy), weights(end))
    again = checkpointed(tokenizer, tmp_path)
    again.train(resume=True)
    assert torch.equal(weights(again.policy), weights(end)) and again.history.rows == trainer.history.rows


def test_what_is_written_is_what_is_read(tmp_path):
    state = {
        "a": [1, 2.5, None, "x"],
        "b": {"c": torch.arange(3), "dict": {"tensor": torch.ones(2, 2)}},
        "d": [[1], []],
    }
    store = Checkpoints(tmp_path)
    store.write(7, state)
    found = store.newest()
    assert found["a"] == state["a"] and found["d"] == state["d"]
    assert torch.equal(found["b"]["c"], state["b"]["c"])
    assert torch.equal(found["b"]["dict"]["tensor"], state["b"]["dict"]["tensor"])


ONLINE = {"prompts_per_rollout": 6, "max_new_tokens": 5, "update_epochs": 2}


def early(prompts, completions):
    """The share of words that begin before the letter n."""
    words = [reply[0]["content"].split() or ["z"] for reply in completions]
    return torch.tensor([sum(word < "n" for word in reply) / len(reply) for reply in words])


def online(kind, config, **how):
    def make(t, s):
        s = {k: v for k, v in s.items() if k not in ("batch_size", "accumulation")}
        records = [{"prompt": prompt} for prompt in prompts("train", 12)]
        return kind(tiny_llama(len(t)), t, records, config(**s, **ONLINE, **how), reward=early)

    return make


KILLABLE = {
    "sft, with dropout": MAKE["sft, with dropout"],
    "dpo": MAKE["dpo"],
    "reward": MAKE["reward"],
    "kto": MAKE["kto"],
    "ppo": online(PPOTrainer, PPOConfig, batch_size=3, target_kl=1.0),
    "grpo": online(GroupTrainer, GroupConfig, batch_size=6, completions=2),
    "online dpo": online(OnlinePreferenceTrainer, OnlinePreferenceConfig, batch_size=3, completions=3),
}
KILLED_ANYWHERE = """
import os, random, signal, sys, tempfile, threading, time
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)  # what is forked below must have no threads
from test_checkpoints import KILLABLE, SETTINGS
from course_lib.trainers import Part
from course_lib.world import build_tokenizer

class KillSoon(Part):
    # the clock starts with the first step, so that every moment of a run may be hit: updates, rollouts, writing
    def __init__(self, after):
        self.after = after

    def start(self, run):
        threading.Timer(self.after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

draw, tokenizer = random.Random({method!r}), build_tokenizer()
for name in ("first", "second"):
    start = time.perf_counter()
    folder = tempfile.mkdtemp()
    KILLABLE[{method!r}](tokenizer, SETTINGS | dict(checkpoint_folder=folder, checkpoint_every=1)).train()
    third = (time.perf_counter() - start) / 3  # of a run: of five kills some come early, and some late
for number in range(30):
    settings = SETTINGS | dict(checkpoint_folder={folder!r} + f"/{{number // 5}}", checkpoint_every=1)
    after = draw.uniform(0.0, third)
    child = os.fork()
    if not child:
        KILLABLE[{method!r}](tokenizer, settings).train(resume=True, parts=[KillSoon(after)])
        time.sleep(60)  # a run that has ended already waits for its end
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLABLE)
def test_a_run_killed_at_thirty_random_moments_ends_at_the_same_weights(tokenizer, tmp_path, method):
    """Six runs, each killed five times and begun again from what the killed process left."""
    whole = KILLABLE[method](tokenizer, SETTINGS)
    whole.train()
    script = KILLED_ANYWHERE.format(tests=str(Path(__file__).parent), folder=str(tmp_path), method=method)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    left = [[path.name for path in Checkpoints(folder).all()] for folder in sorted(tmp_path.iterdir())]
    assert len(left) == 6 and any(left)  # else nothing is resumed below
    for folder in sorted(tmp_path.iterdir()):
        resumed = KILLABLE[method](tokenizer, SETTINGS | {"checkpoint_folder": folder, "checkpoint_every": 1})
        resumed.train(resume=True)
        assert torch.equal(weights(resumed.policy), weights(whole.policy))
