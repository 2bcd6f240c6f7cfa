"""The loop carries what its own trainers do not need: a critic beside the policy, and several epochs over a rollout."""

import copy
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama
from test_trainers import QUIET, weights

from course_lib import ppo_policy_loss, ppo_value_loss, sample, whiten
from course_lib.data import collate_completions, encode_completion
from course_lib.logprobs import completion_logps
from course_lib.trainers import Method, Part, Trainer, TrainingConfig
from course_lib.world import prompts


def test_a_method_knows_nothing_of_the_loop():
    source = Path(sys.modules[Method.__module__].__file__).read_text()
    assert issubclass(Trainer, Method) and not re.search(r"trainers\.(loop|run|part|base)", source)


class Rollouts:
    """Samples a few prompts, then hands them out in two halves, `epochs` times; it can be saved and goes on."""

    def __init__(self, trainer, epochs=2):
        self.trainer, self.epochs, self.round, self.queue = trainer, epochs, 0, []

    def __len__(self):
        return 2 * self.epochs

    def take(self):
        if not self.queue:
            batch = self.trainer.roll_out(self.round)
            order = [random.Random(f"{self.round}-{epoch}").sample(range(8), 8) for epoch in range(self.epochs)]
            self.queue = [{k: v[rows] for k, v in batch.items()} for o in order for rows in (o[:4], o[4:])]
            self.round += 1
        return [self.queue.pop(0)]

    def state_dict(self):
        return {"round": self.round, "queue": self.queue}

    def load_state_dict(self, state):
        self.round, self.queue = state["round"], list(state["queue"])


class TinyPPO(Trainer):
    """PPO with a critic on its own body; the reward is the share of early letters, which is good enough for a test."""

    record_kind = "prompt"

    def __init__(self, policy, tokenizer, records, config):
        super().__init__(policy, tokenizer, records, config)
        self.critic = torch.nn.ModuleDict(
            {"body": copy.deepcopy(policy.model), "head": torch.nn.Linear(policy.config.hidden_size, 1)}
        )
        torch.nn.init.zeros_(self.critic["head"].weight)

    def trained(self):
        return {"policy": self.policy, "critic": self.critic}

    def batches(self, run):
        return Rollouts(self)

    def terms(self, batch):
        return int(batch["completion_mask"].sum())

    def roll_out(self, number):
        asked = [record["prompt"] for record in self.records]
        replies = sample(self.policy, self.tokenizer, asked, max_new_tokens=6, seed=number)
        rows = [encode_completion(p, r, self.tokenizer) for p, r in zip(asked, replies, strict=True)]
        batch = collate_completions(rows, self.pad)
        scores = torch.tensor([sum(c < "n" for c in reply) / (1 + len(reply)) for reply in replies])
        with torch.no_grad():
            batch["old_logps"], mask = completion_logps(self.policy, **batch)
            batch["old_values"] = self.values(self.critic, batch)
        returns = scores[:, None].expand_as(mask)
        return batch | {"returns": returns, "advantages": whiten(returns - batch["old_values"], mask)}

    def values(self, critic, batch):
        hidden = critic["body"](batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return critic["head"](hidden).squeeze(-1)

    def loss(self, policy, critic, batch):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "completion_mask")}
        logps, mask = completion_logps(policy, **inputs)
        gains = ppo_policy_loss(logps, batch["old_logps"], batch["advantages"], mask, reduction="sum")
        errors = ppo_value_loss(
            self.values(critic, batch), batch["old_values"], batch["returns"], mask, reduction="sum"
        )
        ratio = (logps - batch["old_logps"]).exp()[mask].max().item()
        return gains + errors, {"val/loss": errors.item() / int(mask.sum()), "val/ratio": ratio}


def run(tokenizer, folder=None, **options):
    config = TrainingConfig(**QUIET | {"epochs": 3, "checkpoint_folder": folder, "checkpoint_every": 1})
    records = [{"prompt": p} for p in prompts("test", 8)]
    trainer = TinyPPO(tiny_llama(len(tokenizer)), tokenizer, records, config)
    return trainer, trainer.train(**options)


def test_a_critic_and_several_epochs_over_a_rollout_need_no_change_of_the_loop(tokenizer):
    trainer, history = run(tokenizer)
    rows = history.rows
    losses = [row["val/loss"] for row in rows]
    assert len(rows) == 12 and sum(losses[6:]) < sum(losses[:6])
    assert rows[0]["val/ratio"] == pytest.approx(1, abs=1e-4) and rows[-1]["val/ratio"] != pytest.approx(1, abs=1e-4)
    assert all(row["grad_norm"] > 0 and row["grad_norm/critic"] > 0 for row in rows)


def test_such_a_run_resumes_in_the_middle_of_a_rollout(tokenizer, tmp_path):
    class Die(Part):
        def before_update(self, run):
            if run.step == 6:
                raise KeyboardInterrupt

    whole, history = run(tokenizer)
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path, parts=[Die()])
    resumed, again = run(tokenizer, tmp_path, resume=True)
    assert torch.equal(weights(resumed.policy), weights(whole.policy))
    assert torch.equal(weights(resumed.critic), weights(whole.critic)) and again.rows == history.rows


def test_models_are_clipped_apart(tokenizer):
    class Norms(Part):
        def before_update(self, run):
            self.norms = {
                name: torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
                for name, model in run.models.items()
            }

    records = [{"prompt": p} for p in prompts("test", 8)]
    config = TrainingConfig(**QUIET | {"max_grad_norm": 1e-3})
    part = Norms()
    TinyPPO(tiny_llama(len(tokenizer)), tokenizer, records, config).train(parts=[part])
    assert part.norms == pytest.approx({"policy": 1e-3, "critic": 1e-3}, rel=1e-2)
