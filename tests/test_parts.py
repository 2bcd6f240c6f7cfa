"""What happens around the steps of a run: looks at held-out records, signals, weights that stop being numbers."""

import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import tiny_llama
from test_trainers import QUIET, four_scores, weights

from course_lib import KTOConfig, KTOTrainer, PreferenceConfig, PreferenceTrainer, SFTTrainer, TrainingError, dpo_loss
from course_lib.trainers import Part, TrainingConfig
from course_lib.world import preference_records, sft_records, unpaired_records


def trainer_with_held_out(tokenizer, reference="auto", loss="dpo", **changes):
    return PreferenceTrainer(
        tiny_llama(len(tokenizer)),
        tokenizer,
        preference_records(24),
        PreferenceConfig(**QUIET | {"eval_every": 2} | changes),
        reference=reference,
        loss=loss,
        eval_records=preference_records(20, seed=5),
    )


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_held_out_records_are_looked_at_every_so_many_steps_and_at_the_end(tokenizer, reference):
    rows = trainer_with_held_out(tokenizer, reference).train().rows
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 3]


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_a_look_gives_the_mean_over_held_out_pairs(tokenizer, reference):
    trainer = trainer_with_held_out(tokenizer, reference, beta=0.5)
    held_out = preference_records(20, seed=5)
    (ref_chosen, ref_rejected), _ = four_scores(trainer.policy, tokenizer, held_out)
    last = trainer.train().rows[-1]
    (chosen, rejected), _ = four_scores(trainer.policy, tokenizer, held_out)
    expected = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.5).item()
    assert last["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert last["eval_logps/chosen"] == pytest.approx(chosen.mean().item(), abs=1e-3)


def test_held_out_records_change_nothing_that_is_trained(tokenizer):
    plain = PreferenceTrainer(tiny_llama(len(tokenizer)), tokenizer, preference_records(24), PreferenceConfig(**QUIET))
    looked = trainer_with_held_out(tokenizer)
    for trainer in (plain, looked):
        trainer.train()
    assert torch.equal(weights(plain.policy), weights(looked.policy))


def test_kto_is_evaluated_with_partners_among_the_held_out_records(tokenizer):
    trainer = KTOTrainer(
        tiny_llama(len(tokenizer)),
        tokenizer,
        unpaired_records(24),
        KTOConfig(**QUIET),
        eval_records=unpaired_records(12, seed=3),
    )
    assert all(trainer.partner[i] in trainer.held_out for i in trainer.held_out)
    assert math.isfinite(trainer.train().rows[-1]["eval_loss"])


def test_looks_without_held_out_records_are_refused(tokenizer):
    with pytest.raises(ValueError, match="eval_records"):
        SFTTrainer(tiny_llama(len(tokenizer)), tokenizer, sft_records(8), TrainingConfig(eval_every=2))


def test_a_part_of_ones_own_sees_every_step(tokenizer):
    class Count(Part):
        seen: list = []

        def after_step(self, run):
            self.seen.append((run.step, run.metrics["loss"]))

    trainer = SFTTrainer(tiny_llama(len(tokenizer)), tokenizer, sft_records(24), TrainingConfig(**QUIET))
    rows = trainer.train(parts=[Count()]).rows
    assert Count.seen == [(row["step"], row["loss"]) for row in rows]


def test_a_rate_that_blows_the_weights_up_keeps_the_last_good_ones(tokenizer):
    model = tiny_llama(len(tokenizer))
    before = weights(model).clone()
    settings = QUIET | {"learning_rate": 1e20, "warmup_ratio": 0, "schedule": "constant"}
    trainer = SFTTrainer(model, tokenizer, sft_records(32), TrainingConfig(**settings))
    with pytest.raises(TrainingError, match="last good step"):
        trainer.train()
    assert torch.equal(weights(model), before)


def test_a_step_that_writes_no_numbers_is_said_to_have_spoilt_the_weights(tokenizer):
    class Spoil(Part):
        def before_update(self, run):
            run.optimizer.param_groups[0]["eps"] = math.nan

    trainer = SFTTrainer(tiny_llama(len(tokenizer)), tokenizer, sft_records(16), TrainingConfig(**QUIET))
    with pytest.raises(TrainingError, match="step 1: it wrote weights that are not finite.*spoilt"):
        trainer.train(parts=[Spoil()])


def test_the_history_of_a_run_that_failed_stays_on_the_trainer(tokenizer):
    calls = []

    def breaks_at_the_third(*four, beta, reduction):
        calls.append(1)
        return dpo_loss(*four, beta=beta, reduction=reduction) * (math.nan if len(calls) == 3 else 1)

    trainer = trainer_with_held_out(tokenizer, loss=breaks_at_the_third, eval_every=100)
    with pytest.raises(TrainingError, match="step 3"):
        trainer.train()
    assert [row["step"] for row in trainer.history.rows] == [1, 2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_end_stops_after_the_step_and_keeps_history(tokenizer, name):
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: None)
    try:

        def asks(*four, beta, reduction):
            os.kill(os.getpid(), number)
            return dpo_loss(*four, beta=beta, reduction=reduction)

        history = trainer_with_held_out(tokenizer, loss=asks).train()
        assert history.interrupted and len(history.rows) == 1
    finally:
        signal.signal(number, before)


@pytest.mark.slow
def test_a_run_started_with_nohup_outlives_its_terminal():
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from course_lib.trainers.parts import _heard\n"
        "print(_heard(signal.SIGHUP), _heard(signal.SIGTERM))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda chosen, *rest, beta, reduction: chosen, "shape \\(8,\\)"),
        (lambda *four, beta, reduction: 0.5, "float"),
        (lambda *four, beta, reduction: torch.tensor(0.5), "no gradient"),
        (lambda *four, beta, reduction: dpo_loss(*(f.detach() for f in four), reduction=reduction), "no gradient"),
    ],
)
def test_a_loss_that_cannot_train_is_named_as_such(tokenizer, loss, what):
    with pytest.raises(TrainingError, match=what):
        trainer_with_held_out(tokenizer, loss=loss).train()
