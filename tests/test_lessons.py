"""What lessons share: their list, and settings that trainers take."""

import copy
import json
from pathlib import Path

import pytest
import torch

from course_lib import PreferenceTrainer, world
from course_lib.lessons.curriculum import LESSONS, ready
from course_lib.lessons.settings import TUNED, cloning_config, dpo_config, dpo_with_sft, kto_config
from course_lib.losses import dpo_loss

ROOT = Path(__file__).parent.parent


def test_lessons_are_numbered_without_gaps_and_parts_hang_together():
    assert [number for number, _, _ in LESSONS] == [f"{i:02d}" for i in range(len(LESSONS))]
    parts = [part for _, _, part in LESSONS]
    assert parts == sorted(parts, key=parts.index)


def test_lessons_are_ready_whose_notebooks_are_there(tmp_path):
    for name in ("03_b.ipynb", "00_a.ipynb", "notes.ipynb", "04_draft.txt"):
        (tmp_path / name).touch()
    assert ready(tmp_path) == ["00", "03"]
    assert set(ready(ROOT / "notebooks")) <= {number for number, _, _ in LESSONS}


@pytest.mark.parametrize("config", [dpo_config, kto_config])
def test_settings_of_a_run_can_be_changed_one_by_one(config):
    assert config(beta=0.7).beta == 0.7 and config(5).seed == 5
    changed = config(beta=1.0, epochs=2)
    assert (changed.beta, changed.epochs, changed.batch_size) == (1.0, 2, config().batch_size)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_dpo_with_sft_adds_a_tenth_of_the_chosen_responses_likelihood(reduction):
    scores = [torch.tensor(values) for values in ([-5.0, -9.0], [-7.0, -8.0], [-6.0, -8.5], [-6.5, -8.0])]
    losses = dpo_loss(*scores, beta=0.3, reduction="none") + torch.tensor([0.5, 0.9])
    expected = {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]
    torch.testing.assert_close(dpo_with_sft(*scores, beta=0.3, reduction=reduction), expected)


def test_a_trainer_takes_dpo_with_sft(tiny_model, tokenizer):
    trainer = PreferenceTrainer(tiny_model, tokenizer, world.preference_records(8), dpo_config(), loss=dpo_with_sft)
    first = trainer.train().rows[0]
    assert first["loss"] > 0.7  # the chosen responses' part comes on top of log 2


@pytest.fixture
def experiments(monkeypatch):
    """The scripts' folder where they look for each other."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


@pytest.fixture
def trained(monkeypatch):
    """Trainers are made but do not train; they note themselves here."""
    from course_lib import KTOTrainer, SFTTrainer

    made = []

    def note(trainer):
        made.append(trainer)
        return type("History", (), {"rows": []})()

    for trainer in (PreferenceTrainer, KTOTrainer, SFTTrainer):
        monkeypatch.setattr(trainer, "train", note)
    return made


def test_trainers_take_every_arm_of_the_family(experiments, trained, tiny_model, tokenizer):
    import family
    from arms import train

    for labels, methods in family.ARMS.items():
        for method in methods:
            options = family.arm(method, family.LABELS[labels])
            train(tiny_model, tokenizer, 0, 1, pairs=32, **options)
            beta = options.get("beta", TUNED.get(method, TUNED["dpo"])["beta"])
            assert (trained[-1].config.beta, trained[-1].config.seed) == (beta, 1)
    assert len(trained) == sum(map(len, family.ARMS.values()))


def test_trainers_take_every_arm_of_dpos_failures(experiments, trained, tiny_model, tokenizer):
    import dpo_failures
    from arms import train

    for arm in dpo_failures.ARMS.values():
        reference = {"reference": copy.deepcopy(tiny_model)} if "reference" in arm else {}
        train(tiny_model, tokenizer, 3, 0, **arm | reference | {"pairs": 64})
        assert trained[-1].config.beta == arm.get("beta", TUNED[arm.get("method", "dpo")]["beta"])
        assert trained[-1].config.seed == 30


def test_trainers_take_every_setting_of_the_tuning(experiments, trained, tiny_model, tokenizer):
    import tuning
    from arms import train

    for method, (rates, strength, values) in tuning.GRID.items():
        if method in tuning.ONLINE:
            continue
        train(tiny_model, tokenizer, 0, 0, method=method, pairs=32, learning_rate=rates[0], **{strength: values[0]})
        assert trained[-1].config.learning_rate == rates[0] and getattr(trained[-1].config, strength) == values[0]


def test_online_trainers_take_every_arm_and_see_equal_samples(experiments, monkeypatch, tiny_model, tokenizer):
    import online
    import online_arms
    import tuning

    from course_lib.trainers import OnlineTrainer

    made = []
    monkeypatch.setattr(OnlineTrainer, "train", lambda trainer, parts: made.append(trainer))
    settings = [(method, {"learning_rate": 1e-3, "kl_coefficient": 0.3}) for method in tuning.ONLINE]
    for method, changes in [*settings, *((method, changes) for method, _, changes in online.ARMS.values())]:
        online_arms.train(tiny_model, tokenizer, 3, method, len, **changes)
        config = made[-1].config
        assert all(getattr(config, name) == value for name, value in changes.items()) and config.seed == 30
        assert round(config.epochs * online_arms.PROMPTS * config.completions) == 60 * 96


def test_cloning_takes_its_tuned_setting():
    assert (cloning_config(3).epochs, cloning_config(3, epochs=1).seed) == (TUNED["cloned"]["epochs"], 3)


def test_the_settings_are_those_that_tuning_chose(experiments):
    import tuning

    assert tuning.chosen() == TUNED


def test_a_seeds_result_replaces_an_earlier_one_or_adds_to_it(experiments, monkeypatch, tmp_path):
    import results_io

    monkeypatch.setattr(results_io, "FOLDER", tmp_path)
    results_io.add_seed("x", {"seed": 1, "a": {"old": 1}})
    results_io.add_seed("x", {"seed": 0, "a": {"new": 2}})
    results_io.add_seed("x", {"seed": 1, "a": {"new": 3}}, to_earlier=True)
    results_io.add_seed("x", {"seed": 0, "b": 4})
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["seeds"] == [{"seed": 0, "b": 4}, {"seed": 1, "a": {"old": 1, "new": 3}}]
    assert found["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name[:2])
def test_teaching_cells_are_narrow_and_leave_checks_to_tags_and_tests(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line.rstrip("\n") for cell in cells for line in cell["source"]]
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line.lstrip().startswith("assert ") or "NBVAL" in line]
    checked = ["".join(c["source"]) for c in cells if "nbval-check-output" in c["metadata"].get("tags", [])]
    assert checked
    noisy = ("plt.", "load_policy(", "load_reward_model(")  # figures and progress bars are outputs that nbval compares
    assert not [source for source in checked if any(word in source for word in noisy)]


def test_states_that_lesson_13_counts_by_hand():
    from course_lib import estimate_memory

    lm, score = 8_030_261_248, 7_504_928_768
    assert estimate_memory(8e9, "dpo").states == 112e9 and estimate_memory(8e9, "ppo").states == 224e9
    assert estimate_memory("llama-3-8b", "dpo").states == 14 * lm
    assert estimate_memory("llama-3-8b", "ppo").states == 14 * lm + 14 * score


def test_a_ratio_of_the_reported_table_lies_outside_every_setting_of_lesson_13():
    from course_lib.claims.reported_memory import REPORTED_PEAKS, reported_grid

    equal = reported_grid("llama-3-8b").xs("sharded", level="frozen models")
    assert (equal["DPO"] / equal["SimPO"]).max() < REPORTED_PEAKS["DPO"] / REPORTED_PEAKS["SimPO"]


def test_ppo_waits_for_unequal_completions_and_dpo_for_links_as_lesson_14_says():
    from course_lib.speed import scaling

    options = {"gpus": (8, 4096), "gradient_checkpointing": True}
    ppo, equal = (scaling("llama-3-8b", "ppo", batch_size=8, **more, **options) for more in ({}, {"length_spread": 0}))
    dpo = scaling("llama-3-8b", "dpo", batch_size=4, **options)
    waits = [table.waiting / table.seconds for table in (ppo, dpo, equal)]
    assert (waits[0] > 2 * waits[2]).all() and (waits[0] > waits[1]).all()
    assert dpo.communication.iloc[-1] > dpo.waiting.iloc[-1] and ppo.waiting.is_monotonic_increasing


@pytest.fixture
def six_replies():
    """What lesson 03 works with, from its own cells."""
    cells = json.loads((ROOT / "notebooks/03_the_objective_both_share.ipynb").read_text())["cells"]
    names = {"torch": torch, "world": world, "BETA": 0.5}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "replies = [" in source:
            exec(source.split("\n\n")[0], names)
    return names


def test_lesson_03s_replies_are_well_formed_and_go_from_best_to_worst(six_replies):
    from course_lib.world.gold import gold_parts

    for question, replies, rewards in (("question", "replies", "rewards"),
                                       ("ant_question", "ant_replies", "ant_rewards")):  # fmt: skip
        asked, given, earned = six_replies[question], six_replies[replies], six_replies[rewards]
        assert len(given) == 6 and all(gold_parts(asked, reply)["malformed"] == 0 for reply in given)
        assert earned.tolist() == world.gold_reward([asked] * 6, given).tolist()
        assert (earned.diff() < 0).all()
    for ref in ("ref", "ant_ref"):
        assert six_replies[ref].exp().sum().item() == pytest.approx(1)


def test_what_lesson_03_says_of_its_six_replies(six_replies):
    from course_lib import exact

    ref, rewards, beta = six_replies["ref"].double(), six_replies["rewards"], 0.5
    best = exact.optimal_policy(ref, rewards, beta=beta)
    assert best.argmax() == ref.argmax() == 2 and (best > ref)[:2].all() and not (best > ref)[2:].any()
    nearly_best = torch.tensor([0.95] + 5 * [0.01], dtype=torch.float64).log()
    mixture = (0.75 * ref.exp() + 0.25 * nearly_best.exp()).log()
    only, far, mixed = (exact.rlhf_objective(p, ref, rewards, beta=beta) for p in (ref, nearly_best, mixture))
    assert far < only < mixed < exact.rlhf_objective(best, ref, rewards, beta=beta)
    on_ant = [six_replies["ant_ref"].double(), six_replies["ant_rewards"]]
    assert exact.log_partition(*on_ant, beta=beta) < exact.log_partition(ref, rewards, beta=beta)
    certain = torch.ones(6, 6, dtype=torch.float64).triu(1) + torch.eye(6, dtype=torch.float64) / 2
    moved = exact.ipo_optimum(ref, certain, beta=beta) - ref
    assert (moved[0] - moved[-1]).item() == pytest.approx((11 / 12 - 1 / 12) / beta)  # below 1 / beta
    seen = exact.optimal_policy(ref, rewards * (torch.arange(6) > 0), beta=beta)  # any reward for the unseen one, ...
    place = seen[0] - seen[1:].mean() - (ref[0] - ref[1:].mean())
    unseen = seen - place * (torch.arange(6) == 0)  # ... and then back where it began
    assert [round(logps.softmax(-1)[0].item(), 2) for logps in (ref, unseen)] == [0.05, 0.02]


def test_lesson_03s_sampled_gradient_has_the_right_mean_with_any_baseline_and_less_noise_with_a_good_one(six_replies):
    from course_lib import exact

    ref, rewards = six_replies["ref"].double(), six_replies["rewards"]
    logps = torch.tensor([0.5, -1.0, 0.2, 0.8, -0.5, -2.0], dtype=torch.float64).log_softmax(-1)
    p, worth = logps.exp(), rewards - 0.5 * (logps - ref)
    noise = {}
    for baseline in (0.0, 3.0, (p @ worth).item()):
        each = (worth - baseline)[:, None] * (torch.eye(6, dtype=torch.float64) - p)  # one row per reply drawn
        torch.testing.assert_close(p @ each, exact.rlhf_gradient(logps, ref, rewards, beta=0.5))
        noise[baseline] = (p @ each.square().sum(1)).item()
    assert min(noise, key=noise.get) == (p @ worth).item()
