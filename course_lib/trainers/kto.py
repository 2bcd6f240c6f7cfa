"""KTO on unpaired records: a prompt, a response, and a thumb up or down."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_completions
from course_lib.logprobs import sequence_logps
from course_lib.losses import kto_kl_baseline, kto_loss
from course_lib.trainers.config import TrainingConfig, folder, number, optional, setting
from course_lib.trainers.referenced import ReferencedTrainer
from course_lib.trainers.run import Run
from course_lib.trainers.together import summed


@dataclass
class KTOConfig(TrainingConfig):
    """Settings of a KTO run."""

    learning_rate: float = setting(1e-6, number(above=0), "highest learning rate of AdamW")
    beta: float = setting(0.1, number(above=0), "strength of the pull to the reference")
    desirable_weight: float = setting(1.0, number(least=0), "weight of thumbs up in the loss")
    undesirable_weight: float = setting(1.0, number(least=0), "weight of thumbs down in the loss")
    reference_cache: str | Path | None = setting(
        None, optional(folder), "keeps precomputed reference scores between runs"
    )


class KTOTrainer(ReferencedTrainer):
    """Train on thumbs: `KTOTrainer(policy, tokenizer, records).train()`.

    Every batch and micro-batch holds both classes in the data's proportion. For the baseline z0 each prompt is
    also paired with another row's response; z0 is the mean over the whole batch, all micro-batches together.

    Args:
        policy: the model to train, in place; it should have been through SFT.
        tokenizer: its tokenizer.
        records: `{"prompt", "completion", "label"}`, strings or chat messages, labels booleans.
        config: a `KTOConfig`.
        reference: "auto", "copy", "adapter-off" or "precomputed" (see `reference_of`), or another model.

    Metrics: `loss`, `kl` (the baseline, nats), `rewards/chosen` and `rewards/rejected` (mean implicit reward of
    desirable and undesirable responses), `rewards/margins`.

    Raises:
        ValueError: if one of the classes has fewer records than there are micro-batches, or a prompt leaves no room
            for another row's response.
    """

    record_kind = "unpaired"
    config_class = KTOConfig

    def __init__(
        self,
        policy,
        tokenizer,
        records: Sequence[dict],
        config: KTOConfig | None = None,
        *,
        reference: str | torch.nn.Module = "auto",
        eval_records: Sequence[dict] | None = None,
    ):
        super().__init__(policy, tokenizer, records, config, reference=reference, eval_records=eval_records)
        self.labels = [bool(record["label"]) for record in self.records]
        self.partner = _partners(self.rows, self.training, self.longest, self.config.seed)
        if self.held_out:
            self.partner += _partners(self.rows, self.held_out, self.longest, self.config.seed)

    def refuse_small_batches(self, processes: int) -> None:
        super().refuse_small_batches(processes)
        self._refuse_a_missing_class(self.training, processes * self.config.accumulation)
        if self.held_out:
            self._refuse_a_missing_class(self.held_out, processes)

    def _refuse_a_missing_class(self, rows: range, parts: int) -> None:
        batches, labels = -(-len(rows) // self.config.batch_size), [bool(self.records[i]["label"]) for i in rows]
        for label, name in ((True, "desirable"), (False, "undesirable")):
            if labels.count(label) < batches * parts:
                raise ValueError(
                    f"{labels.count(label)} {name} records cannot be in each of {batches} batches of {parts} "
                    f"micro-batches, and KTO needs both classes in all of them; add {name} records, raise batch_size "
                    "or lower accumulation"
                )

    def groups(self) -> list[int]:
        return [int(label) for label in self.labels]

    def terms(self, batch: dict[str, Tensor]) -> int:
        return len(batch["desirable"])

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        rows = [self.rows[i] for i in indices]
        crossed = [_crossed(self.rows[i], self.rows[self.partner[i]]) for i in indices]
        mismatched = {f"mismatched_{name}": value for name, value in collate_completions(crossed, self.pad).items()}
        labels = {
            "desirable": torch.tensor([self.labels[i] for i in indices]),
            "lengths": torch.tensor([row.scored_tokens for row in rows]),
        }
        return self.with_reference(collate_completions(rows, self.pad) | mismatched | labels, indices)

    def cache_key(self) -> str:
        return super().cache_key() + repr(self.partner)

    def score(self, model, batch: dict[str, Tensor]) -> Tensor:
        """Log-probabilities of each row's own response, and of the mismatched one."""
        return torch.stack([self._logps(model, batch), self._logps(model, batch, "mismatched_")])

    def before_step(self, run: Run, micro_batches: list[dict[str, Tensor]]) -> None:
        """Put the baseline of the whole batch, and the reference's scores, into each micro-batch.

        The baseline stands for the KL over *all* that the policy writes. A micro-batch of a few rows would estimate it
        from these few, and the loss, which is not linear in it, would then depend on how the batch was cut.
        """
        super().before_step(run, micro_batches)
        accelerator, (model,) = run.accelerator, run.models.values()
        policy, reference = [], []
        with torch.no_grad(), accelerator.autocast():  # the baseline is a number, not a path for gradients
            for batch in micro_batches:
                policy.append(self._logps(model, batch, "mismatched_"))
                batch["ref_logps"] = self.reference_scores(model, batch)
                reference.append(batch["ref_logps"][1])
        desirable = torch.cat([batch["desirable"] for batch in micro_batches]).float()
        rows, found = len(desirable), (torch.cat(policy), torch.cat(reference), desirable)
        sums = {str(i): values.mean().item() * rows for i, values in enumerate(found)} | {"rows": float(rows)}
        sums = summed(accelerator, sums)  # of all processes, which may hold unequal numbers of rows
        means = [torch.tensor([sums[str(i)] / sums["rows"]], device=accelerator.device) for i in range(len(found))]
        policy, reference, share = means
        for batch in micro_batches:
            batch |= {"kl_baseline": kto_kl_baseline(policy, reference), "desirable_share": share}

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, desirable, baseline = self.config, batch["desirable"], batch["kl_baseline"]
        logps, ref = self._logps(model, batch), batch["ref_logps"][0]
        self.compare_at_start(logps, ref, batch["lengths"])
        loss = kto_loss(
            logps,
            ref,
            desirable,
            baseline,
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            reduction="sum",
        )
        rewards, share = config.beta * (logps.detach() - ref), batch["desirable_share"]
        up, down = (rewards * desirable).mean() / share, (rewards * ~desirable).mean() / (1 - share)
        up, down = up.item(), down.item()  # averaged over micro-batches they are the whole batch's means
        metrics = {"rewards/chosen": up, "rewards/rejected": down, "rewards/margins": up - down}
        return loss, metrics | {"kl": baseline.item()}

    def _logps(self, model, batch: dict[str, Tensor], which: str = "") -> Tensor:
        inputs = (batch[which + name] for name in ("input_ids", "attention_mask", "completion_mask"))
        return sequence_logps(model, *inputs, chunk_size=self.config.chunk_size)


def _crossed(row: Encoded, other: Encoded) -> Encoded:
    """One row's prompt with another row's response."""
    return other._replace(prompt_ids=row.prompt_ids)


def _partners(rows: list[Encoded], among: range, longest: int, seed: int) -> list[int]:
    """For each of some rows another one of them, whose response makes the mismatched pair within `longest` tokens.

    Rows stand in a circle by the length of their responses, equal ones shuffled, and each takes that of the nearest
    other one, the next before the last, so that mismatched batches pad as little as others. A row with the same prompt
    or the same response is passed over if others fit: it would not mismatch.
    """
    order = random.Random(f"partners-{seed}").sample(among, len(among))
    order.sort(key=lambda i: len(rows[i].completion_ids))
    partner = {}
    for place, here in enumerate(order):
        found = next(_others(order, place, rows, longest, strict=True), None)
        if found is None:
            found = next(_others(order, place, rows, longest, strict=False), None)
        if found is None:
            raise ValueError(
                f"record {here - among.start}: no other response fits behind its prompt of "
                f"{len(rows[here].prompt_ids)} tokens within {longest}, as KTO's baseline needs; raise max_length, or "
                "drop the record"
            )
        partner[here] = found
    return [partner[i] for i in among]


def _others(order: list[int], place: int, rows: list[Encoded], longest: int, *, strict: bool) -> Iterator[int]:
    """Rows whose responses fit behind this one's prompt, nearest in the circle first; `strict`: that mismatch."""
    row, reach = rows[order[place]], min(len(order), 100) if strict else len(order)
    for distance in range(1, reach):
        for other in (order[(place + distance) % len(order)], order[place - distance]):
            fits = len(row.prompt_ids) + len(rows[other].completion_ids) <= longest
            mismatches = row.prompt_ids != rows[other].prompt_ids and row.completion_ids != rows[other].completion_ids
            if fits and (mismatches or not strict):
                yield other
