"""The reference is what the policy was: seen at the first step, and safe on disk."""

import copy
import math

import pytest
import torch
from conftest import tiny_llama
from safetensors.torch import load_file, save_file
from test_trainers import QUIET, kto_run, preference_run, weights
from transformers import LlamaForCausalLM

from course_lib import KTOConfig, KTOTrainer, PreferenceConfig, PreferenceTrainer, TrainingError
from course_lib.trainers import Run
from course_lib.world import preference_records, unpaired_records


class ScoresByTheBatch(LlamaForCausalLM):
    """A model whose scores depend on what else is in the batch, as some rotary embeddings have it."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        positions = torch.arange(input_ids.shape[1])[None] * (1 + input_ids.sum() % 5)
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **kwargs)


def batch_bound(tokenizer):
    model = ScoresByTheBatch(tiny_llama(len(tokenizer)).config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MANY = {"n": 600, "batch_size": 4}  # so many that the reference and the policy score them in other batches


def test_scores_that_depend_on_the_batch_stop_a_run_before_its_first_update(tokenizer):
    model = batch_bound(tokenizer)
    before = weights(model).clone()
    with pytest.raises(TrainingError, match="step 1: before any update.*what else is in the batch"):
        preference_run(model, tokenizer, reference="precomputed", share_prompt=False, **MANY)
    assert torch.equal(weights(model), before)


def test_kto_s_scores_that_depend_on_the_batch_are_seen_too(tokenizer):
    with pytest.raises(TrainingError, match="before any update"):
        kto_run(batch_bound(tokenizer), tokenizer, reference="precomputed", **MANY)


def test_the_same_model_trains_with_a_reference_scored_in_the_same_batches(tokenizer):
    history, _ = preference_run(batch_bound(tokenizer), tokenizer, reference="copy", share_prompt=False)
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_rounding_is_no_reason_to_stop(tokenizer, reference, precision):
    preference_run(tiny_llama(len(tokenizer)), tokenizer, reference=reference, mixed_precision=precision)


def test_a_reference_that_is_another_model_may_differ(tokenizer):
    preference_run(tiny_llama(len(tokenizer)), tokenizer, reference=tiny_llama(len(tokenizer), seed=3))


def test_a_policy_to_which_its_own_replies_are_noise_is_warned_about(tokenizer, sft_policy, caplog):
    preference_run(tiny_llama(len(tokenizer)), tokenizer)
    assert "hardly more likely than noise" in caplog.text
    caplog.clear()
    preference_run(sft_policy[0], tokenizer)
    assert "noise" not in caplog.text


def cached(model, tokenizer, folder):
    return preference_run(copy.deepcopy(model), tokenizer, n=16, reference="precomputed", reference_cache=folder)


@pytest.mark.parametrize("damage", ["cut", "two bytes", "zeros", "a row too many", "not finite", "empty"])
def test_damaged_scores_on_disk_are_computed_anew_with_a_warning(tiny_model, tokenizer, tmp_path, damage, caplog):
    first, policy = cached(tiny_model, tokenizer, tmp_path)
    (file,) = tmp_path.iterdir()
    data, scores = bytearray(file.read_bytes()), load_file(file)["scores"]
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "two bytes":
        data[-3] ^= 64
        data[-7] ^= 64
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        others = {"zeros": scores * 0, "a row too many": torch.cat([scores, scores[:1]]), "not finite": scores / 0}
        save_file({"scores": others[damage]}, file)
    again, policy_again = cached(tiny_model, tokenizer, tmp_path)
    assert "computed anew" in caplog.text and again.rows == first.rows
    assert torch.equal(weights(policy), weights(policy_again))
    caplog.clear()
    cached(tiny_model, tokenizer, tmp_path)  # what was mended is read again
    assert "computed anew" not in caplog.text


def test_a_cache_that_cannot_be_written_costs_a_warning_before_the_pass_and_not_the_run(
    tiny_model, tokenizer, tmp_path, caplog
):
    (tmp_path / "file").write_text("in the way")
    history, _ = cached(tiny_model, tokenizer, tmp_path / "file")
    assert "cannot be written" in caplog.text and len(history.rows) == 2


def test_a_disk_that_fills_up_during_the_pass_costs_a_warning(tiny_model, tokenizer, tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("course_lib.trainers.reference_scores.save_file", full)
    history, _ = cached(tiny_model, tokenizer, tmp_path)
    assert "No space left" in caplog.text and len(history.rows) == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("trainer", ["preference", "kto"])
def test_the_reference_never_moves_and_is_asked_once(tokenizer, trainer):
    model, frozen = tiny_llama(len(tokenizer)), tiny_llama(len(tokenizer), seed=1)
    before = weights(frozen).clone()
    if trainer == "kto":
        KTOTrainer(model, tokenizer, unpaired_records(16), KTOConfig(**QUIET), reference=frozen).train()
    else:
        made = PreferenceTrainer(model, tokenizer, preference_records(16), PreferenceConfig(**QUIET), reference=frozen)
        made.train()
    assert torch.equal(weights(frozen), before) and not any(p.requires_grad for p in frozen.parameters())


def test_precomputed_scores_are_kept_between_runs_of_one_trainer(tokenizer):
    trainer = PreferenceTrainer(
        tiny_llama(len(tokenizer)), tokenizer, preference_records(8), PreferenceConfig(**QUIET), reference="precomputed"
    )
    Run(trainer)
    first = trainer.precomputed
    Run(trainer)
    assert trainer.precomputed is first
