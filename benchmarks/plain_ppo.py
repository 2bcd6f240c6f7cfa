"""PPO as a careful loop of four models on transformers' `generate`: the peer of PPOTrainer in `online_steps.py`.

Evaluation mode throughout, left padding, log-probabilities of the completions' columns alone, fused AdamW, minibatches
without columns that are padding in all rows: what somebody writes who knows what they do, and no more than that.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainPPO:
    """Actor, critic, reward model and reference, all fp32, on one device."""

    def __init__(self, actor, reward, tokenizer, *, rate: float, kl: float, minibatches: int, new_tokens: int):
        self.actor, self.reward, self.tokenizer = actor.eval(), reward.eval(), tokenizer
        self.reference = copy.deepcopy(actor).requires_grad_(False)
        self.body = copy.deepcopy(actor.model)
        self.value = nn.Linear(actor.config.hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        critic = [*self.body.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.AdamW(
            [{"params": actor.parameters(), "lr": rate}, {"params": critic, "lr": 5 * rate}],
            weight_decay=0.0,
            fused=True,
        )
        self.groups = [list(actor.parameters()), critic]
        self.kl, self.minibatches, self.new_tokens = kl, minibatches, new_tokens

    def iteration(self, prompts: list) -> float:
        """One rollout and one pass over it; returns the mean reward."""
        texts = [self.tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in prompts]
        inputs = self.tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )  # fmt: skip
        start, eos, pad = inputs.input_ids.shape[1], self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        with torch.no_grad():
            ids = self.actor.generate(
                inputs.input_ids, attention_mask=inputs.attention_mask, do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, max_new_tokens=self.new_tokens, pad_token_id=pad,
            )  # fmt: skip
            said = ids[:, start:]
            before_end = (said == eos).long().cumsum(1) - (said == eos).long() == 0
            mask = torch.cat([torch.zeros_like(inputs.input_ids).bool(), before_end], 1)
            seen = torch.cat([inputs.attention_mask, before_end.long()], 1)
            old, ref = (self.logps(model, ids, seen, start) for model in (self.actor, self.reference))
            values = self.values(ids, seen, start) * before_end
            scores = self.scores(ids, seen)
            rewards = -self.kl * (old - ref) * before_end
            last = before_end.sum(1) - 1
            rewards[torch.arange(len(ids)), last] += scores
            advantages = torch.zeros_like(rewards)
            running = following = torch.zeros(len(ids))
            for t in reversed(range(rewards.shape[1])):
                inside = before_end[:, t].float()
                delta = rewards[:, t] + following - values[:, t]
                running = (delta + 0.95 * running) * inside
                following = values[:, t] * inside + following * (1 - inside)
                advantages[:, t] = running
            returns = advantages + values
            picked = advantages[before_end]
            advantages = (advantages - picked.mean()) / (picked.std() + 1e-8) * before_end
        for rows in torch.randperm(len(ids)).chunk(self.minibatches):
            self.update(ids, seen, mask, start, rows, old, values, advantages, returns)
        return scores.mean().item()

    def update(self, ids, seen, mask, start, rows, old, values, advantages, returns) -> None:
        width = int(seen[rows].any(0).nonzero().max()) + 1
        ids, seen, inside = ids[rows, :width], seen[rows, :width], mask[rows, start:width]
        cut = slice(0, width - start)
        logps = self.logps(self.actor, ids, seen, start)
        ratio = ((logps - old[rows, cut]) * inside).exp()
        gain = advantages[rows, cut]
        policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
        now, before, target = self.values(ids, seen, start), values[rows, cut], returns[rows, cut]
        near = before + (now - before).clamp(-0.9, 0.9)
        value = torch.maximum((now - target) ** 2, (near - target) ** 2) / 2
        ((policy + 0.5 * value)[inside]).mean().backward()
        for weights in self.groups:
            nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def logps(self, model, ids: Tensor, seen: Tensor, start: int) -> Tensor:
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        kept = ids.shape[1] - start + 1
        logits = model(ids, attention_mask=seen, position_ids=positions, logits_to_keep=kept, use_cache=False).logits
        targets = ids[:, start:]
        return -F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def values(self, ids: Tensor, seen: Tensor, start: int) -> Tensor:
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        hidden = self.body(ids, attention_mask=seen, position_ids=positions, use_cache=False).last_hidden_state
        return self.value(hidden[:, start - 1 : -1])[..., 0]

    def scores(self, ids: Tensor, seen: Tensor) -> Tensor:
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        hidden = self.reward.model(ids, attention_mask=seen, position_ids=positions, use_cache=False).last_hidden_state
        last = seen.shape[1] - 1 - seen.flip(1).argmax(1)
        return self.reward.score(hidden[torch.arange(len(ids)), last])[:, 0]
