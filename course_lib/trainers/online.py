"""What trainers share that learn from their own samples: rollouts, rewards, a reference that is asked once for each."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from course_lib.logprobs import (
    CompletionStates,
    Packed,
    completion_logps,
    completion_states,
    evaluating,
    fits_window,
    pack,
    packed_states,
    why_not_shared,
)
from course_lib.losses import kl_estimate
from course_lib.models import reference_of
from course_lib.rollouts import Decoding, Rollout, roll_out
from course_lib.trainers.base import Trainer
from course_lib.trainers.config import OnlineConfig
from course_lib.trainers.dropout import without_dropout
from course_lib.trainers.referenced import frozen_reference
from course_lib.trainers.rollout_batches import RolloutBatches
from course_lib.trainers.scoring import RewardFunction, shard_reward, shared_scores, warn_of_negative_kl, whole_rollout
from course_lib.trainers.sharded import frozen, whole
from course_lib.trainers.together import joined, my_part

logger = logging.getLogger(__name__)
READ = ("input_ids", "attention_mask", "completion_mask")  # what a model is given of a batch
REFERENCES = ("auto", "copy", "adapter-off")
HELD_OUT_SEED = 2**31  # so that every look draws with the same numbers, which no rollout has


class OnlineTrainer(Trainer):
    """A trainer whose rows are prompts, and whose batches are what the policy says to them.

    Args:
        policy, tokenizer, config: as for every trainer.
        records: `{"prompt"}`; other columns are left alone.
        reward: `(prompts, completions)` to a tensor (B,): one number for each completion.
        reference: "auto" (adapters off where the policy has fresh ones, else a frozen copy), "copy", "adapter-off", or
            another model, which is frozen in place. Without a price on distance (`kl_coefficient=0`) none is held.
        rollouts: what draws completions, called as `roll_out` is: that, or `VLLMRollouts`.
        eval_records: prompts that are never trained on: each is answered once at every look, by the same random
            numbers, and scores, distance and lengths go into the history as `eval_objective/scores` and so on.

    Dropout is off while it trains, so that the first update's probability ratio is 1.
    """

    record_kind = "prompt"
    config_class = OnlineConfig
    config: OnlineConfig

    def __init__(
        self,
        policy,
        tokenizer,
        records: Sequence[dict],
        config: OnlineConfig | None = None,
        *,
        reward: RewardFunction,
        reference: str | torch.nn.Module = "auto",
        rollouts: Callable[..., Rollout] = roll_out,
        eval_records: Sequence[dict] | None = None,
    ):
        super().__init__(policy, tokenizer, records, config, eval_records=eval_records)
        self.reward, self.rollouts = reward, rollouts
        if isinstance(reference, str) and reference not in REFERENCES:
            raise ValueError(
                f"the reference scores new samples: it is 'auto', 'copy', 'adapter-off' or a model, not {reference!r}"
            )
        self.reference = self._reference(reference) if self.holds_reference else None
        self.kl_coefficient = self.config.kl_coefficient
        self.rollout: Rollout | None = None  # the latest one, to look at
        self.parts_of_scores: dict[str, Tensor] = {}
        self.of_rollout: dict[str, float] = {}  # its metrics, which all updates on it report
        self.accelerator = None  # of the run at hand
        self.packs = False  # whether rows go through the models without padding; found out before training
        self._batches: RolloutBatches | None = None

    @property
    def room(self) -> int:
        return self.config.max_new_tokens

    @property
    def rows_per_prompt(self) -> int:
        """Rows that a prompt adds to a rollout, at most."""
        return self.config.completions

    def refuse_small_batches(self, processes: int) -> None:
        """Nothing to refuse: minibatches are of completions, and a small one is cut into fewer micro-batches."""

    @property
    def holds_reference(self) -> bool:
        return self.config.kl_coefficient > 0

    def _reference(self, wanted):
        if not isinstance(wanted, str):
            return frozen_reference(wanted, self.policy)
        if wanted == "auto":
            kind = reference_of(self.policy).kind
            wanted = kind if kind == "adapter-off" else "copy"
        return reference_of(self.policy, kind=wanted)

    def description(self) -> dict:
        return super().description() | {"reference": self.reference.kind if self.reference is not None else "none"}

    def terms(self, batch: dict[str, Tensor]) -> int:
        return int(batch["completion_mask"].sum())

    def batches(self, run) -> RolloutBatches:
        config = self.config
        self._batches = RolloutBatches(
            len(self.training),
            self.collect,
            prompts_per_rollout=config.prompts_per_rollout,
            rows_per_prompt=self.rows_per_prompt,
            batch_size=config.batch_size,
            update_epochs=config.update_epochs,
            accumulation=config.accumulation,
            seed=config.seed,
            share=run.share,
        )
        return self._batches

    def before_training(self, accelerator) -> None:
        self.accelerator = accelerator
        if self.reference is not None and self.reference.frozen is not None:
            self.reference.frozen.to(accelerator.device)
        reasons = [reason for model in self.readers() if (reason := self._why_not_packed(model))]
        if reasons:
            logger.warning("computing padding, and prompts once for each completion: %s", reasons[0])
        self.packs = not reasons
        if self.reference is not None and self.reference.frozen is not None:
            self.reference.frozen = frozen(accelerator, self.reference.frozen)
        self.reward_engines = shard_reward(accelerator, self.reward)

    def readers(self) -> list:
        """The causal language models that read rollouts."""
        frozen = self.reference.frozen if self.reference is not None else None
        return [self.policy] + ([frozen] if frozen is not None else [])

    def _why_not_packed(self, model) -> str:
        if reason := why_not_shared(model):
            return reason
        longest = max(map(self.length, self.rows)) + self.config.max_new_tokens
        return "" if fits_window(model, longest) else "rows are longer than the window that its attention sees"

    @contextmanager
    def training_mode(self) -> Iterator[None]:
        with without_dropout(*self.trained().values()):
            yield

    def collect(self, number: int, indices: list[int]) -> dict[str, Tensor]:
        """One rollout as tensors: drawn, scored, read by the reference, and made into what updates need.

        Of all that costs time each process does its share; the rollout is then whole, and the same, on all of them.
        """
        config = self.config
        with self.precision():
            self.rollout = self.roll_out(indices, config.completions, config.seed * 1_000_003 + number)
            batch = self.scored(self.rollout)
            seen = self.rollout_metrics(batch)  # before the price is steered
            found, metrics = self.prepare(batch)
        self.of_rollout = seen | metrics
        return found

    def precision(self):
        """The arithmetic that updates have, for rollouts and scores too: else the first ratio would not be 1."""
        return nullcontext() if self.accelerator is None else self.accelerator.autocast()

    def roll_out(self, indices: Sequence[int], n: int, seed: int) -> Rollout:
        """`n` completions of each of these prompts."""
        part = my_part(len(indices))

        def draw(mine: Sequence[int]) -> Rollout:
            return self.rollouts(
                self.policy,
                self.tokenizer,
                [self.records[i]["prompt"] for i in mine],
                n=n,
                max_new_tokens=self.config.max_new_tokens,
                decoding=Decoding(self.config.temperature),
                seed=seed,
                first=part.start,
                batch_size=self.config.rollout_batch,
                encoded=[self.rows[i].prompt_ids for i in mine],
            )

        with whole(self.policy):
            return whole_rollout(joined(lambda: draw(indices[part]) if indices[part] else None))

    def scored(self, rollout: Rollout) -> dict[str, Tensor]:
        """A rollout as tensors, with its scores and the reference's log-probabilities."""
        batch = rollout.batch(self.pad)
        batch["old_logps"] = batch.pop("logps")
        del batch["plain_logps"]
        scores, self.parts_of_scores = shared_scores(rollout, self.reward)
        batch["scores"] = scores - self.config.missing_end_penalty * (~rollout.ended).float()
        batch["ref_logps"] = self.reference_logps(batch)
        batch["kl"] = (batch["old_logps"] - batch["ref_logps"]).sum(dim=1)  # k1 of each completion, nats
        return batch

    def held_out_metrics(self, run) -> dict[str, float]:
        """Means over one completion of each held-out prompt; `held_out_rollout` keeps them to be read."""
        with self.precision():
            self.held_out_rollout = self.roll_out(self.held_out, 1, HELD_OUT_SEED)
            return self.rollout_metrics(self.scored(self.held_out_rollout))

    @torch.no_grad()
    def reference_logps(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, T) the reference's log-probabilities of the rollout's tokens; the policy's own where there is none."""
        if self.reference is None:
            return batch["old_logps"].clone()
        with self.reference.scoring(self.policy) as scorer, evaluating(scorer), whole(scorer):
            return self.in_parts(lambda part: self.logps(scorer, part), batch)

    def packed(self, batch: dict[str, Tensor]) -> Packed | None:
        """The batch without padding, where all models that read it can be given that."""
        return pack(*(batch[name] for name in READ)) if self.packs else None

    def states(self, model, batch: dict[str, Tensor], packed: Packed | None) -> CompletionStates | None:
        """The hidden states that predict the completions' tokens; None where the output layer is not to be had."""
        if packed is not None:
            return packed_states(model, packed)
        return completion_states(model, *(batch[name] for name in READ))

    def logps(self, model, batch: dict[str, Tensor]) -> Tensor:
        """(B, T) log-probabilities of the completions' tokens under the distribution that was drawn from."""
        how = {"temperature": self.config.temperature, "chunk_size": self.config.chunk_size}
        states = self.states(model, batch, self.packed(batch))
        if states is None:
            return completion_logps(model, *(batch[name] for name in READ), **how)[0]
        return states.spread(states.logps(**how))

    def in_parts(self, function: Callable[[dict[str, Tensor]], Tensor], batch: dict[str, Tensor]) -> Tensor:
        """`function` of a batch, so many rows at a time; each process does its share of them."""
        size, mine = self.config.rollout_batch, my_part(len(batch["input_ids"]))
        device = next(self.policy.parameters()).device
        starts = range(mine.start, mine.stop, size)
        parts = [{n: batch[n][i : min(i + size, mine.stop)].to(device) for n in READ} for i in starts]
        return torch.cat(sum(joined(lambda: [function(part).cpu() for part in parts]), []))

    @abstractmethod
    def prepare(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What updates on a rollout are made of, and metrics of that."""

    def rollout_metrics(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Means over completions of what the rollout showed, under the names that TRL gave them."""
        found = {
            "objective/scores": batch["scores"].mean().item(),
            "objective/entropy": -batch["old_logps"].sum(dim=1).mean().item(),
            "val/length": batch["completion_mask"].sum(dim=1).float().mean().item(),
        }
        for name, values in self.parts_of_scores.items():
            found[f"reward/{name}"] = values.float().mean().item()
        if self.reference is not None:  # without one the distance is not known, which is not 0
            found["objective/kl"] = batch["kl"].mean().item()
            warn_of_negative_kl(batch["kl"])
            rewards = batch["scores"] - self.kl_coefficient * batch["kl"]
            found["objective/rlhf_reward"] = rewards.mean().item()
        return found

    def update_metrics(
        self, logps: Tensor, batch: dict[str, Tensor], low: float, high: float, *, whole: bool = False
    ) -> dict[str, float]:
        """How far the policy has come since the rollout, means over real tokens.

        `low` and `high` are the clip's ranges; `whole`: the ratio is that of whole completions.
        """
        mask = batch["completion_mask"]
        log_ratio = (logps.detach() - batch["old_logps"])[mask]
        clipped = (logps.detach() - batch["old_logps"]).sum(dim=1).exp() if whole else log_ratio.exp()
        ratio = log_ratio.exp()
        moved = kl_estimate(-log_ratio, torch.zeros_like(log_ratio), estimator="k3").mean().item()
        return {
            "policy/approxkl_avg": moved,
            "policy/clipfrac_avg": ((clipped > 1 + high) | (clipped < 1 - low)).float().mean().item(),
            "val/ratio": ratio.mean().item(),
            "val/ratio_max": ratio.max().item(),
        }

    def after_step(self, run) -> None:
        stop = getattr(self.config, "stop_at_kl", None)
        if stop is not None and run.metrics["policy/approxkl_avg"] > stop:
            self._batches.drop_the_rest()

    def state_dict(self) -> dict:
        return {"kl_coefficient": self.kl_coefficient, "of_rollout": self.of_rollout}

    def load_state_dict(self, state: dict) -> None:
        self.kl_coefficient, self.of_rollout = state["kl_coefficient"], dict(state["of_rollout"])
