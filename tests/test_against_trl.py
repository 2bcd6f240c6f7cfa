"""TRL 1.16 as an independent oracle: its trainers' own code, on a model for DPO's family, on numbers for the rest."""

import copy
from collections import defaultdict
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_llama
from datasets import Dataset

from course_lib import (
    PreferenceTrainer,
    bradley_terry_loss,
    dpo_loss,
    grpo_loss,
    ipo_loss,
    kto_kl_baseline,
    kto_loss,
    orpo_loss,
    ppo_policy_loss,
    robust_dpo_loss,
    sequence_logps,
    simpo_loss,
)
from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.world import preference_records

trl = pytest.importorskip("trl")


@pytest.fixture(scope="module")
def both(tmp_path_factory, tokenizer):
    """The same batch of pairs and the same two models, seen by TRL's trainer and by this library."""
    policy, reference = tiny_llama(len(tokenizer), 1), tiny_llama(len(tokenizer), 2)
    records = preference_records(6, seed=3)
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=trl.DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")), beta=0.2, per_device_train_batch_size=6,
            report_to=[], use_cpu=True, bf16=False, activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(records),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.model.eval()
    batch = next(iter(torch.utils.data.DataLoader(
        trainer.train_dataset, batch_size=6, collate_fn=trainer.data_collator
    )))  # fmt: skip
    return policy, reference, records, trainer, batch


@pytest.mark.parametrize(
    ("loss_type", "label_smoothing", "loss", "average"),
    [
        ("sigmoid", 0.0, dpo_loss, False),
        ("robust", 0.2, partial(robust_dpo_loss, label_smoothing=0.2), False),
        ("ipo", 0.0, ipo_loss, True),
    ],
    ids=["dpo", "robust", "ipo-token-means"],
)
def test_loss_and_gradient_on_a_model_equal_trl(both, tokenizer, loss_type, label_smoothing, loss, average):
    policy, reference, records, trainer, their_batch = both
    trainer.loss_types, trainer.label_smoothing = [loss_type], label_smoothing
    theirs = trainer.compute_loss(trainer.model, dict(their_batch))
    their_gradients = torch.autograd.grad(theirs, list(trainer.model.parameters()))
    batch = collate_pairs([tuple(encode_row(r, tokenizer)) for r in records], tokenizer.pad_token_id)
    with torch.no_grad():
        ref = sequence_logps(reference, **batch, average=average).chunk(2)
    ours = loss(*sequence_logps(policy, **batch, average=average).chunk(2), *ref, beta=0.2)
    gradients = torch.autograd.grad(ours, list(policy.parameters()))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for (name, _), mine, other in zip(policy.named_parameters(), gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4, msg=name)


def test_trl_sees_the_same_tokens(both, tokenizer):
    _, _, records, _, _ = both
    for record in records:
        for side, encoded in zip(("chosen", "rejected"), encode_row(record, tokenizer), strict=True):
            whole = tokenizer.apply_chat_template(record["prompt"] + record[side], return_dict=False)
            assert [*encoded.prompt_ids, *encoded.completion_ids] == whole


def test_reference_model_can_be_any_model(both, tokenizer):
    policy, reference, records, their_trainer, their_batch = both
    their_trainer.loss_types = ["sigmoid"]
    theirs = their_trainer.compute_loss(their_trainer.model, dict(their_batch))
    trainer = PreferenceTrainer(copy.deepcopy(policy), tokenizer, records, reference=copy.deepcopy(reference))
    trainer.config.beta, trainer.config.batch_size, trainer.config.progress = 0.2, 6, False
    assert trainer.train().rows[0]["loss"] == pytest.approx(theirs.item(), abs=1e-5)


def draw(*shapes: tuple[int, ...], scale: float = 1.0) -> list[torch.Tensor]:
    """Log-probabilities of the given shapes, below zero."""
    generator = torch.Generator().manual_seed(0)
    return [-scale * torch.rand(shape, generator=generator) - 0.01 for shape in shapes]


def trl_self(**attributes) -> SimpleNamespace:
    """What a method of a TRL trainer reads from `self`, on one process, in evaluation."""
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            device="cpu",
            num_processes=1,
            gather=lambda t: t,
            gather_for_metrics=lambda t: t,
            reduce=lambda t, reduction: t,
        ),
        model=SimpleNamespace(training=False),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        aux_loss_enabled=False,
        **attributes,
    )


def assert_same(ours, theirs, inputs: list[torch.Tensor]) -> None:
    """Check value and gradient with respect to `inputs` of two functions of them."""
    results = []
    for function in (ours, theirs):
        leaves = [t.clone().requires_grad_() for t in inputs]
        value = function(*leaves)
        results.append((value.detach(), *torch.autograd.grad(value, leaves)))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.3])
def test_cdpo_equals_trl_with_log_ratios_in_place_of_log_probabilities(label_smoothing):
    from trl.experimental.cpo import CPOTrainer

    *policy, ref_chosen, ref_rejected = draw((8,), (8,), (8,), (8,), scale=30)
    trainer = trl_self(alpha=0.0, loss_type="sigmoid", beta=0.2, label_smoothing=label_smoothing)

    def theirs(chosen, rejected):
        return CPOTrainer.cpo_loss(trainer, chosen - ref_chosen, rejected - ref_rejected)[0].mean()

    def ours(chosen, rejected):
        return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.2, label_smoothing=label_smoothing)

    assert_same(ours, theirs, policy)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (2.5, 0.0), (10.0, 3.0)])
def test_simpo_equals_trl(beta, gamma):
    from trl.experimental.cpo import CPOTrainer

    lengths = torch.tensor([1, 3, 1000, 7]), torch.tensor([2, 3, 1, 900])
    trainer = trl_self(alpha=0.0, loss_type="simpo", beta=beta, simpo_gamma=gamma, label_smoothing=0.0)

    def theirs(chosen, rejected):
        return CPOTrainer.cpo_loss(trainer, chosen / lengths[0], rejected / lengths[1])[0].mean()

    assert_same(lambda *logps: simpo_loss(*logps, *lengths, beta=beta, gamma=gamma), theirs, draw((4,), (4,), scale=9))


def test_orpo_equals_trl():
    from trl.experimental.orpo import ORPOTrainer

    lengths = torch.tensor([1, 3, 1000, 7]), torch.tensor([2, 3, 1, 900])
    trainer = trl_self(beta=0.3)

    def theirs(chosen, rejected, nll):
        return nll - ORPOTrainer.odds_ratio_loss(trainer, chosen / lengths[0], rejected / lengths[1])[0].mean()

    inputs = [*draw((4,), (4,), scale=9), torch.tensor(1.7)]
    assert_same(lambda *logps: orpo_loss(*logps[:2], *lengths, logps[2], beta=0.3), theirs, inputs)


@pytest.mark.parametrize("sign", [1, -1], ids=["baseline", "baseline-clamped-at-0"])
def test_kto_equals_trl(sign):
    policy, ref = draw((6, 5), (6,), scale=4)
    mismatched, ref_mismatched = (sign * t for t in draw((6,), (6,), scale=9))
    desirable = torch.tensor([1, 0, 0, 1, 0, 1])
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    trainer = trl_self(
        loss_type="kto", beta=0.2, calculate_KL=True, precompute_ref_logps=True,
        _compute_kl_logps=lambda model, batch: mismatched, **weights,
    )  # fmt: skip
    ones = torch.ones(6, 6, dtype=torch.long)
    batch = {
        "label": desirable, "input_ids": ones, "completion_mask": ones, "ref_logps": ref,
        "ref_KL_logps": ref_mismatched,
    }  # fmt: skip

    def theirs(logps):
        zeros = torch.zeros(6, 5)
        outputs = SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros)
        return trl.KTOTrainer._compute_loss(trainer, lambda **_: outputs, batch, return_outputs=False)

    baseline = kto_kl_baseline(mismatched, ref_mismatched)
    assert (baseline > 0) == (sign > 0)
    assert_same(lambda logps: kto_loss(logps.sum(1), ref, desirable, baseline, beta=0.2, **weights), theirs, [policy])
    assert baseline.item() == pytest.approx(trainer._metrics["eval"]["kl"][-1], abs=1e-6)


@pytest.mark.parametrize(
    ("loss_type", "beta"), [("grpo", 0.0), ("grpo", 0.3), ("bnpo", 0.0), ("dapo", 0.3), ("dr_grpo", 0.3)]
)
def test_grpo_and_ppo_policy_loss_equal_trl(loss_type, beta):
    logps, old, ref = draw((4, 6), (4, 6), (4, 6), scale=1.0)
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [4]])
    advantages, high = torch.tensor([1.0, -2.0, 0.5, -0.3]), 0.2 if loss_type == "bnpo" else 0.28
    trainer = trl_self(
        loss_type=loss_type, beta=beta, epsilon_low=0.2, epsilon_high=high, importance_sampling_level="token",
        max_completion_length=9, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
    )  # fmt: skip
    inputs = {
        "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum().float(),
    }  # fmt: skip

    def theirs(logps):
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, torch.zeros(4, 6), None)
        return trl.GRPOTrainer._compute_loss(trainer, None, inputs)

    def ours(logps):
        if loss_type == "bnpo":
            return ppo_policy_loss(logps, old, advantages[:, None].expand(4, 6), mask)
        how = {"grpo": "completion", "dapo": "token", "dr_grpo": 9}[loss_type]
        return grpo_loss(logps, old, advantages, mask, ref_logps=ref, beta=beta, clip_range_high=high, normalise=how)

    assert_same(ours, theirs, [logps])


@pytest.mark.parametrize("coefficient", [None, 0.01])
@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 0.0, 2.0])], ids=["no-margin", "margin"])
def test_bradley_terry_equals_trl(coefficient, margin):
    trainer = trl_self(args=SimpleNamespace(center_rewards_coefficient=coefficient))

    def theirs(chosen, rejected):
        outputs = SimpleNamespace(logits=torch.cat([chosen, rejected]).unsqueeze(1))
        inputs = {} if margin is None else {"margin": margin}
        return trl.RewardTrainer.compute_loss(trainer, lambda **_: outputs, inputs)

    options = {"margin": margin, "center_coefficient": coefficient or 0.0}
    assert_same(lambda *rewards: bradley_terry_loss(*rewards, **options), theirs, draw((3,), (3,), scale=4))
