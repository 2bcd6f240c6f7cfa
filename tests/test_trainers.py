"""Trainers: what is promised of a run, on models small enough to train in a second."""

import copy
import math
import os
import signal
import threading

import pytest
import torch
from conftest import tiny_llama
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from course_lib import (
    KTOConfig,
    KTOTrainer,
    PreferenceConfig,
    PreferenceTrainer,
    RewardTrainer,
    SFTTrainer,
    TrainingConfig,
    TrainingError,
    dpo_loss,
    ipo_loss,
    length_dpo_loss,
    load_policy,
    orpo_loss,
    reference_of,
    robust_dpo_loss,
    sequence_logps,
    simpo_loss,
)
from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.models import save_pretrained
from course_lib.trainers import Run
from course_lib.world import preference_records, sft_records, unpaired_records

QUIET = {"progress": False, "log_every": 1, "batch_size": 8, "learning_rate": 1e-3}


def preference_run(model, tokenizer, n=32, reference="auto", loss="dpo", **changes):
    trainer = PreferenceTrainer(
        model, tokenizer, preference_records(n), PreferenceConfig(**QUIET | changes), reference=reference, loss=loss
    )
    return trainer.train(), trainer.policy


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def with_lora(model):
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_dpo_starts_at_ln_2_with_no_margin(tiny_model, tokenizer, reference):
    history, _ = preference_run(tiny_model, tokenizer, reference=reference)
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history.rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_copied_and_precomputed_references_train_the_same_policy(tiny_model, tokenizer):
    ends = [
        weights(preference_run(copy.deepcopy(tiny_model), tokenizer, reference=r)[1]) for r in ("copy", "precomputed")
    ]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-4)


def test_adapters_off_train_the_same_policy_as_a_copy(tiny_model, tokenizer):
    ends = [
        weights(preference_run(with_lora(copy.deepcopy(tiny_model)), tokenizer, reference=r)[1])
        for r in ("copy", "adapter-off")
    ]
    assert torch.equal(*ends)


def test_fifty_steps_equal_a_plain_loop(tiny_model, tokenizer):
    plain, records = copy.deepcopy(tiny_model), preference_records(8)
    config = PreferenceConfig(**QUIET | {"epochs": 50, "schedule": "constant", "warmup_ratio": 0})
    trainer = PreferenceTrainer(tiny_model, tokenizer, records, config)
    losses = [row["loss"] for row in trainer.train().rows]
    batch = collate_pairs([tuple(encode_row(r, tokenizer)) for r in records], tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0)
    ref = sequence_logps(plain, **batch).detach().chunk(2)
    assert len(losses) == 50
    for expected in losses:
        loss = dpo_loss(*sequence_logps(plain, **batch).chunk(2), *ref, beta=0.1)
        assert loss.item() == pytest.approx(expected, abs=1e-4)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def four_scores(model, tokenizer, records):
    """Summed log-probs and lengths of chosen and rejected, one row at a time as it were: no sharing."""
    batch = collate_pairs([tuple(encode_row(r, tokenizer)) for r in records], tokenizer.pad_token_id)
    with torch.no_grad():
        return sequence_logps(model, **batch).chunk(2), batch["completion_mask"].sum(dim=1).chunk(2)


FIRST_LOSS = {  # at the start policy and reference are one
    "dpo": lambda w, x, n, m: dpo_loss(w, x, w, x),
    "cdpo": lambda w, x, n, m: dpo_loss(w, x, w, x, label_smoothing=0.1),
    "robust": lambda w, x, n, m: robust_dpo_loss(w, x, w, x, label_smoothing=0.1),
    "ipo": lambda w, x, n, m: ipo_loss(w, x, w, x),
    "length-dpo": lambda w, x, n, m: length_dpo_loss(w, x, w, x, n, m, length_penalty=0.01),
    "simpo": lambda w, x, n, m: simpo_loss(w, x, n, m),
    "orpo": lambda w, x, n, m: orpo_loss(w, x, n, m, -w / n),
}


@pytest.mark.parametrize("loss", FIRST_LOSS)
def test_each_named_loss_starts_at_its_own_value_and_falls(tiny_model, tokenizer, loss):
    (chosen, rejected), (longer, shorter) = four_scores(tiny_model, tokenizer, preference_records(16))
    history, _ = preference_run(tiny_model, tokenizer, n=16, loss=loss, batch_size=16, epochs=6, learning_rate=3e-3)
    expected = FIRST_LOSS[loss](chosen, rejected, longer, shorter).item()
    assert history.rows[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo", "orpo"])
def test_a_shared_prompt_trains_the_same_policy(tiny_model, tokenizer, loss):
    one_step = {"batch_size": 16, "max_grad_norm": 1e9, "learning_rate": 1e-3}
    ends = []
    for share in (True, False):
        model = copy.deepcopy(tiny_model)
        preference_run(model, tokenizer, n=16, loss=loss, share_prompt=share, **one_step)
        ends.append(four_scores(model, tokenizer, preference_records(16))[0])
    torch.testing.assert_close(torch.cat(ends[0]), torch.cat(ends[1]), atol=2e-2, rtol=1e-3)


def test_token_means_can_be_passed_instead_of_sums(tiny_model, tokenizer):
    sums, means = (
        preference_run(copy.deepcopy(tiny_model), tokenizer, loss="ipo", epochs=4, average=average)[0].rows[-1]
        for average in (False, True)
    )
    assert abs(means["rewards/margins"]) < abs(sums["rewards/margins"])


def test_reference_scores_are_kept_on_disk_by_model_and_data(tiny_model, tokenizer, tmp_path):
    cache = {"reference_cache": tmp_path / "scores", "n": 8}
    first, _ = preference_run(copy.deepcopy(tiny_model), tokenizer, **cache)
    (file,) = (tmp_path / "scores").iterdir()
    stamp = file.stat().st_mtime_ns
    again, _ = preference_run(copy.deepcopy(tiny_model), tokenizer, **cache)
    assert again.rows == first.rows and file.stat().st_mtime_ns == stamp
    preference_run(tiny_llama(len(tokenizer), 1), tokenizer, **cache)
    preference_run(copy.deepcopy(tiny_model), tokenizer, **cache | {"n": 9})
    preference_run(copy.deepcopy(tiny_model), tokenizer, **cache | {"mixed_precision": "bf16"})
    other = copy.deepcopy(tiny_model)
    other.config.rope_parameters["rope_theta"] = 500.0
    preference_run(other, tokenizer, **cache)
    assert len(list((tmp_path / "scores").iterdir())) == 5


def test_scores_on_disk_are_those_of_the_active_adapter(tiny_model, tokenizer, tmp_path):
    policy = with_lora(tiny_model)
    policy.add_adapter("other", LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    config = PreferenceConfig(**QUIET | {"reference_cache": tmp_path})
    for name in ("default", "other", "default"):
        policy.set_adapter(name)
        trainer = PreferenceTrainer(policy, tokenizer, preference_records(8), config, reference="precomputed")
        Run(trainer)  # scores the reference and takes no step: the weights are the same bytes each time
    assert len(list(tmp_path.iterdir())) == 2


def test_scores_on_disk_are_those_of_kto_s_own_partners(tiny_model, tokenizer, tmp_path):
    for seed in (0, 1, 0):
        kto_run(copy.deepcopy(tiny_model), tokenizer, seed=seed, reference_cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("reference", ["copy", "adapter-off"])
def test_a_cache_for_a_reference_that_is_not_precomputed_is_refused(tiny_model, tokenizer, tmp_path, reference):
    with pytest.raises(ValueError, match="reference='precomputed'"):
        preference_run(with_lora(tiny_model), tokenizer, reference=reference, reference_cache=tmp_path)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_policy_is_not_its_own_reference(tiny_model, tokenizer, adapted):
    policy = with_lora(tiny_model) if adapted else tiny_model
    with pytest.raises(ValueError, match="shares weights"):
        preference_run(policy, tokenizer, reference=tiny_model)
    assert any(p.requires_grad for p in policy.parameters())


def test_a_reference_that_cannot_share_prompts_is_asked_for_each_completion(tiny_model, tokenizer):
    class Deaf(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask=None, position_ids=None, **kwargs):
            return super().forward(input_ids=input_ids, position_ids=position_ids, **kwargs)

    records, deaf = preference_records(8), Deaf(tiny_model.config)
    deaf.load_state_dict(tiny_model.state_dict())
    trainer = PreferenceTrainer(tiny_model, tokenizer, records, PreferenceConfig(**QUIET), reference=deaf)
    trainer.train()
    assert not trainer.shared


def test_a_loss_may_name_no_beta(tiny_model, tokenizer):
    history, _ = preference_run(tiny_model, tokenizer, n=8, loss=lambda *logps, **options: dpo_loss(*logps, **options))
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("accumulation", [2, 3, 8])
def test_micro_batches_equal_one_batch(tiny_model, tokenizer, accumulation):
    ends = [weights(preference_run(copy.deepcopy(tiny_model), tokenizer, accumulation=k)[1]) for k in (1, accumulation)]
    torch.testing.assert_close(*ends, atol=1e-4, rtol=1e-3)


def test_micro_batches_equal_one_batch_for_sft_whatever_the_token_counts(tiny_model, tokenizer):
    ends = []
    for k in (1, 3):
        model = copy.deepcopy(tiny_model)
        SFTTrainer(model, tokenizer, sft_records(24), TrainingConfig(**QUIET | {"accumulation": k})).train()
        ends.append(weights(model))
    torch.testing.assert_close(*ends, atol=1e-4, rtol=1e-3)


def test_equal_seeds_repeat_bit_for_bit_and_others_do_not(tiny_model, tokenizer):
    runs = [preference_run(copy.deepcopy(tiny_model), tokenizer, seed=s) for s in (1, 1, 2)]
    assert torch.equal(weights(runs[0][1]), weights(runs[1][1])) and runs[0][0].rows == runs[1][0].rows
    assert not torch.equal(weights(runs[0][1]), weights(runs[2][1]))


def test_dpo_learns_its_pairs(tiny_model, tokenizer):
    history, _ = preference_run(tiny_model, tokenizer, epochs=8, learning_rate=3e-3)
    assert history.rows[-1]["loss"] < 0.5 and history.rows[-1]["rewards/accuracies"] > 0.8


def test_any_loss_on_the_four_logps_can_be_passed(tiny_model, tokenizer):
    def hinge(chosen, rejected, ref_chosen, ref_rejected, *, beta, reduction):
        losses = (1 - beta * ((chosen - ref_chosen) - (rejected - ref_rejected))).relu()
        return getattr(losses, reduction)()

    history, _ = preference_run(tiny_model, tokenizer, loss=hinge)
    assert history.rows[0]["loss"] == pytest.approx(1.0, abs=1e-5)


def kto_run(model, tokenizer, n=32, reference="auto", **changes):
    config = KTOConfig(**QUIET | changes)
    return KTOTrainer(model, tokenizer, unpaired_records(n), config, reference=reference).train()


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_kto_starts_at_one_half_with_no_kl(tiny_model, tokenizer, reference):
    first = kto_run(tiny_model, tokenizer, reference=reference).rows[0]
    assert first["loss"] == pytest.approx(0.5, abs=1e-5) and first["kl"] == pytest.approx(0, abs=1e-4)


def test_kto_learns_its_thumbs(tiny_model, tokenizer):
    last = kto_run(tiny_model, tokenizer, epochs=10, learning_rate=3e-3, beta=0.5).rows[-1]
    assert last["loss"] < 0.45 and last["rewards/margins"] > 0.1


def test_kto_micro_batches_equal_one_batch_baseline_included(tiny_model, tokenizer):
    ends = []
    for k in (1, 2):
        model = copy.deepcopy(tiny_model)
        rows = kto_run(model, tokenizer, accumulation=k, epochs=2, beta=0.5).rows
        ends.append((weights(model), torch.tensor([r["kl"] for r in rows])))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_every_kto_micro_batch_holds_both_classes(tiny_model, tokenizer):
    records = [r | {"label": i % 4 == 0} for i, r in enumerate(unpaired_records(64))]
    trainer = KTOTrainer(tiny_model, tokenizer, records, KTOConfig(**QUIET | {"accumulation": 2}))
    seen = []
    trainer.loss, plain = lambda model, batch: (seen.append(batch["desirable"]), plain(model, batch))[1], trainer.loss
    trainer.train()
    assert len(seen) == 16 and all(d.any() and not d.all() for d in seen)


@pytest.mark.parametrize("up", [3, 5, 20, 61])
def test_a_rare_class_is_dealt_over_the_micro_batches(tiny_model, tokenizer, up):
    records = [r | {"label": i < up} for i, r in enumerate(unpaired_records(64))]
    trainer = KTOTrainer(tiny_model, tokenizer, records, KTOConfig(**QUIET | {"batch_size": 64, "accumulation": 3}))
    parts = trainer.batches_of(trainer.training).take()
    assert all(p["desirable"].any() and not p["desirable"].all() for p in parts)
    assert sum(len(p["desirable"]) for p in parts) == 64


def test_kto_s_mismatched_rows_fit_the_model(tiny_model, tokenizer):
    long, short = " ".join(["red"] * 40), "red"
    records = [
        {"prompt": prompt, "completion": completion, "label": label}
        for prompt, completion, label in [(long, short, True), (short, long, False), (short, short, True)]
    ]
    trainer = KTOTrainer(tiny_model, tokenizer, records, KTOConfig(**QUIET | {"max_length": 60}))
    batch = trainer.collate([0, 1, 2])
    assert batch["mismatched_attention_mask"].sum(dim=1).max() <= 60
    with pytest.raises(ValueError, match="no other response fits"):
        KTOTrainer(tiny_model, tokenizer, records[:2], KTOConfig(**QUIET | {"max_length": 60}))


def test_kto_pairs_each_prompt_with_another_rows_response_for_its_baseline(tiny_model, tokenizer):
    trainer = KTOTrainer(tiny_model, tokenizer, unpaired_records(20), KTOConfig(**QUIET))
    assert all(i != j for i, j in enumerate(trainer.partner))


def test_kto_s_mismatched_pairs_mismatch(tiny_model, tokenizer):
    pairs = preference_records(40)
    records = [
        {"prompt": r["prompt"], "completion": r[side], "label": side == "chosen"}
        for r in pairs
        for side in ("chosen", "rejected")
    ]
    trainer = KTOTrainer(tiny_model, tokenizer, records, KTOConfig(**QUIET))
    for row, other in zip(trainer.rows, (trainer.rows[i] for i in trainer.partner), strict=True):
        assert row.prompt_ids != other.prompt_ids and row.completion_ids != other.completion_ids


def test_kto_metrics_do_not_depend_on_micro_batches(tiny_model, tokenizer):
    one, two = (
        kto_run(copy.deepcopy(tiny_model), tokenizer, accumulation=k, beta=0.5, learning_rate=1e-2).rows for k in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, abs=2e-3)


@pytest.mark.parametrize("label", [True, False])
def test_kto_on_a_single_class_is_refused(tiny_model, tokenizer, label):
    records = [r | {"label": label} for r in unpaired_records(16)]
    with pytest.raises(ValueError, match="needs both classes"):
        KTOTrainer(tiny_model, tokenizer, records, KTOConfig(**QUIET))


def test_chunked_logps_train_the_same_policy(tiny_model, tokenizer):
    ends = [weights(preference_run(copy.deepcopy(tiny_model), tokenizer, chunk_size=c)[1]) for c in (None, 5)]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-4)


def test_sft_lowers_the_loss_and_history_is_a_frame(tiny_model, tokenizer):
    history = SFTTrainer(tiny_model, tokenizer, sft_records(64), TrainingConfig(**QUIET | {"epochs": 8})).train()
    frame = history.to_pandas()
    assert frame.loss.iloc[-1] < frame.loss.iloc[0] - 0.5
    assert frame.index.name == "step" and {"loss", "grad_norm", "learning_rate", "epoch"} <= set(frame.columns)


def test_reward_model_learns_its_pairs(tokenizer):
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_labels=1, pad_token_id=0,
    ))  # fmt: skip
    config = TrainingConfig(**QUIET | {"epochs": 25, "learning_rate": 3e-3})
    history = RewardTrainer(model, tokenizer, preference_records(48), config).train()
    assert history.rows[-1]["accuracy"] > 0.9 and history.rows[0]["loss"] == pytest.approx(math.log(2), abs=0.1)


def test_a_trained_adapter_is_never_switched_off_to_get_the_reference(tiny_model, tokenizer):
    policy = preference_run(with_lora(tiny_model), tokenizer)[1]
    with pytest.raises(ValueError, match="precomputed"):
        preference_run(policy, tokenizer, reference="adapter-off")
    history, _ = preference_run(policy, tokenizer)
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_training_again_goes_on_against_the_same_reference(tiny_model, tokenizer):
    trainer = PreferenceTrainer(tiny_model, tokenizer, preference_records(16), PreferenceConfig(**QUIET))
    first, second = trainer.train(), trainer.train()
    assert second.rows[0]["rewards/margins"] > first.rows[0]["rewards/margins"]


def test_precision_can_change_between_runs_and_leaves_no_wrapper(tiny_model, tokenizer):
    for precision in ("no", "bf16", "no"):
        _, policy = preference_run(tiny_model, tokenizer, n=8, mixed_precision=precision)
    assert type(policy.forward).__name__ == "method"


def test_dropout_leaves_the_first_loss_at_ln_2(tokenizer):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=96))
    history, _ = preference_run(model, tokenizer, n=8, reference="copy", beta=1.0)
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_that_is_a_function_is_off_too(tokenizer, checkpointing):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = OPTForCausalLM(OPTConfig(vocab_size=len(tokenizer), word_embed_proj_dim=32, dropout=0.5, **sizes))
    if checkpointing:
        model.gradient_checkpointing_enable()
    history, _ = preference_run(model, tokenizer, n=8, reference="copy", beta=1.0)
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert model.model.decoder.layers[0].dropout == 0.5


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("reference", ["copy", "precomputed", "adapter-off"])
def test_gradient_checkpointing_stays_on_in_every_step(tokenizer, reference, share_prompt):
    model = tiny_llama(len(tokenizer))
    model.gradient_checkpointing_enable()
    policy = with_lora(model) if reference == "adapter-off" else model
    trainer = PreferenceTrainer(
        policy,
        tokenizer,
        preference_records(8),
        PreferenceConfig(**QUIET, share_prompt=share_prompt),
        reference=reference,
    )
    seen, plain = [], trainer.loss

    def loss(*arguments):
        result = plain(*arguments)
        seen.append(sum(m.training for m in model.modules()))
        return result

    trainer.loss = loss
    trainer.train()
    assert seen[0] >= model.config.num_hidden_layers


def test_a_policy_without_trainable_weights_is_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="no trainable weights"):
        preference_run(tiny_model.requires_grad_(False), tokenizer)


def test_the_wrong_config_is_named(tiny_model, tokenizer):
    with pytest.raises(TypeError, match="PreferenceConfig"):
        PreferenceTrainer(tiny_model, tokenizer, preference_records(4), TrainingConfig())


def test_too_few_records_for_the_micro_batches_are_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="lower accumulation"):
        preference_run(tiny_model, tokenizer, n=9, accumulation=8)


def test_saved_adapters_are_loaded_to_train_on_or_merged_under_new_ones(tokenizer, tmp_path):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "base")
    policy, _ = load_policy(str(tmp_path / "base"), lora_rank=4, device="cpu")
    config = TrainingConfig(**QUIET | {"learning_rate": 1e-2})
    trainer = SFTTrainer(policy, tokenizer, sft_records(24), config)
    trainer.train()
    trainer.save_pretrained(tmp_path / "sft")
    batch = collate_pairs([tuple(encode_row(r, tokenizer)) for r in preference_records(4)], 0)
    trained = sequence_logps(trainer.policy, **batch)
    again, _ = load_policy(str(tmp_path / "sft"), device="cpu")
    merged, _ = load_policy(str(tmp_path / "sft"), lora_rank=2, device="cpu")
    assert any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(sequence_logps(again, **batch), trained, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sequence_logps(merged, **batch), trained, atol=1e-3, rtol=1e-4)
    assert reference_of(merged).kind == "adapter-off" and reference_of(again).kind == "precomputed"


def test_an_infinite_loss_stops_with_the_step_and_keeps_the_weights(tiny_model, tokenizer):
    before, calls = weights(tiny_model).clone(), []

    def breaks_at_once(chosen, *rest, beta, reduction):
        calls.append(1)
        return chosen.sum() * float("nan")

    with pytest.raises(TrainingError, match="step 1.*learning rate"):
        preference_run(tiny_model, tokenizer, loss=breaks_at_once)
    assert torch.equal(weights(tiny_model), before) and len(calls) == 1


def test_a_failed_run_leaves_nothing_to_the_next(tiny_model, tokenizer):
    fresh = copy.deepcopy(tiny_model)

    def breaks(chosen, *rest, beta, reduction):
        return chosen.sum() * float("nan")

    with pytest.raises(TrainingError):
        preference_run(tiny_model, tokenizer, loss=breaks)
    ends = [weights(preference_run(model, tokenizer)[1]) for model in (tiny_model, fresh)]
    assert torch.equal(*ends)


def test_ctrl_c_stops_after_the_step_and_keeps_history(tiny_model, tokenizer):
    def press_ctrl_c(*four, beta, reduction):
        os.kill(os.getpid(), signal.SIGINT)
        return dpo_loss(*four, beta=beta, reduction=reduction)

    before = signal.getsignal(signal.SIGINT)  # a shell that runs tests in the background ignores it
    history, policy = preference_run(tiny_model, tokenizer, loss=press_ctrl_c)
    assert history.interrupted and len(history.rows) == 1
    assert weights(policy).isfinite().all()
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread(tiny_model, tokenizer):
    found = []
    thread = threading.Thread(target=lambda: found.append(preference_run(tiny_model, tokenizer)[0]))
    thread.start()
    thread.join()
    assert len(found[0].rows) == 4


def test_saved_policy_is_read_back_unchanged(tiny_model, tokenizer, tmp_path):
    trainer = PreferenceTrainer(tiny_model, tokenizer, preference_records(8), PreferenceConfig(**QUIET))
    trainer.train()
    trainer.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.glob("*.safetensors")] and not list(tmp_path.glob("*.bin"))
    again, tokenizer_again = load_policy(str(tmp_path), device="cpu")
    assert torch.equal(weights(again), weights(trainer.policy))
    assert tokenizer_again.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"learning_rate": 0}, "learning_rate"),
        ({"batch_size": 2, "accumulation": 4}, "accumulation"),
        ({"epochs": -1}, "epochs"),
        ({"max_grad_norm": 0}, "max_grad_norm"),
    ],
)
def test_nonsense_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        TrainingConfig(**changes)


def test_unknown_names_are_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="loss is one of"):
        preference_run(tiny_model, tokenizer, loss="dpoo")
    with pytest.raises(ValueError, match="kind is one of"):
        preference_run(tiny_model, tokenizer, reference="frozen")


def test_malformed_records_stop_a_trainer_before_it_trains(tiny_model, tokenizer):
    records = [*preference_records(3), {"prompt": "a", "chosen": "b"}]
    with pytest.raises(ValueError, match="row 3: lacks 'rejected'"):
        PreferenceTrainer(tiny_model, tokenizer, records)


def test_too_long_records_stop_a_trainer_before_it_trains(tokenizer):
    with pytest.raises(ValueError, match="max_length=8"):
        PreferenceTrainer(tiny_llama(len(tokenizer)), tokenizer, preference_records(3), PreferenceConfig(max_length=8))
