"""Settings: all checked when a config is made, to and from plain values, nothing set in vain."""

import json
import math
from dataclasses import fields

import pytest
import torch
from conftest import tiny_llama

from course_lib import KTOConfig, PreferenceConfig, PreferenceTrainer, TrainingConfig
from course_lib.trainers import Run
from course_lib.trainers.config import SCHEDULES
from course_lib.world import preference_records

NONSENSE = [
    ("learning_rate", 0), ("learning_rate", math.nan), ("learning_rate", math.inf), ("learning_rate", "1e-5"),
    ("epochs", -1), ("epochs", math.nan), ("batch_size", 0), ("batch_size", "4"), ("batch_size", 2.5),
    ("batch_size", True), ("accumulation", 1.5), ("schedule", "lineer"), ("schedule", None), ("warmup_ratio", math.nan),
    ("warmup_ratio", 1.5), ("weight_decay", -0.1), ("adam_betas", (0.9,)), ("adam_betas", (0.9, 1.0)),
    ("adam_betas", 0.9), ("max_grad_norm", 0), ("max_grad_norm", math.nan), ("max_length", 7.5), ("max_length", 1),
    ("over_long", "skip"), ("mixed_precision", "fp16"), ("chunk_size", -1), ("chunk_size", 2.0), ("seed", None),
    ("seed", -1), ("log_every", 0), ("eval_every", 0), ("checkpoint_folder", 3), ("checkpoint_every", 0),
    ("keep_checkpoints", 0), ("progress", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NONSENSE)
def test_nonsense_is_refused_by_name_when_a_config_is_made(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", -1), ("beta", math.nan), ("gamma", math.nan), ("label_smoothing", 0.7), ("average", 1),
     ("length_penalty", math.inf), ("reference_cache", 5), ("share_prompt", None)],
)  # fmt: skip
def test_nonsense_in_a_preference_config_is_refused_whatever_the_loss(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        PreferenceConfig(**{name: value})


def test_every_setting_has_a_check_that_its_default_passes_and_a_help_text():
    for config in (TrainingConfig(), PreferenceConfig(), KTOConfig()):
        for known in fields(config):
            assert not known.metadata["check"](getattr(config, known.name)) and len(known.metadata["help"]) > 10


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="lower accumulation"):
        TrainingConfig(batch_size=2, accumulation=4)


def test_gradients_may_go_unclipped():
    assert TrainingConfig(max_grad_norm=math.inf).max_grad_norm == math.inf


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_that_is_allowed_can_be_built(schedule):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    get_scheduler(TrainingConfig(schedule=schedule).schedule, optimizer, 1, 10)


def test_a_config_goes_to_plain_values_and_back(tmp_path):
    config = PreferenceConfig(beta=0.3, adam_betas=(0.8, 0.9), reference_cache=tmp_path, epochs=2.5)
    plain = json.loads(json.dumps(config.to_dict()))
    assert PreferenceConfig.from_dict(plain).to_dict() == config.to_dict()


def test_an_unknown_setting_is_refused_with_the_nearest_known_one():
    with pytest.raises(ValueError, match="no setting 'learnign_rate'; did you mean 'learning_rate'"):
        TrainingConfig.from_dict({"learnign_rate": 1e-4})
    with pytest.raises(ValueError, match="no setting 'beta'"):
        TrainingConfig.from_dict({"beta": 0.1})


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [("dpo", "label_smoothing", 0.4), ("ipo", "gamma", 1.0), ("simpo", "length_penalty", 0.1), ("orpo", "gamma", 0.5),
     ("simpo", "label_smoothing", 0.1), (lambda *a, **k: None, "label_smoothing", 0.1), ("simpo", "average", True)],
)  # fmt: skip
def test_a_setting_that_the_loss_does_not_take_is_refused(tokenizer, loss, name, value):
    config = PreferenceConfig(**{name: value})
    with pytest.raises(ValueError, match=f"leave (it )?out.*|takes no {name}"):
        PreferenceTrainer(tiny_llama(len(tokenizer)), tokenizer, preference_records(4), config, loss=loss)


@pytest.mark.parametrize(
    ("loss", "name"), [("cdpo", "label_smoothing"), ("simpo", "gamma"), ("length-dpo", "length_penalty")]
)
def test_a_setting_of_the_loss_reaches_it(tokenizer, loss, name):
    def first_loss(**settings):
        config = PreferenceConfig(progress=False, batch_size=8, **settings)
        model = tiny_llama(len(tokenizer))
        trainer = PreferenceTrainer(model, tokenizer, preference_records(8), config, loss=loss)
        (batch,) = Run(trainer).batches.take()
        trainer.starts_at_reference = False
        with torch.no_grad():
            return trainer.loss(tiny_llama(len(tokenizer), seed=1), batch)[0].item()

    assert first_loss(**{name: 0.3}) != pytest.approx(first_loss(), rel=1e-4)
