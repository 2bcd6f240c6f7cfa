"""Lesson 18: the program that judges replies, the pairs that it makes, and what becomes of its results."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from course_lib.claims import real_model, seeds
from course_lib.lessons.curriculum import OPTIONAL
from course_lib.lessons.needs import NotHere, has_smollm2, need_smollm2
from course_lib.lessons.questions import HELD_OUT, STATEMENTS, TRAINING, Question
from course_lib.lessons.short_answers import (
    BATCH,
    STEPS,
    brevity,
    brevity_reward,
    brief_dpo,
    brief_rloo,
    brief_sft,
    half_turned,
    hand_written_pairs,
    in_json,
    is_right,
    own_pairs,
    passes,
    refuses,
    without_flattery,
    words,
)

ROOT = Path(__file__).parent.parent
MICE = Question("word", "What is the plural of mouse?", ("mice",))
OPEN = Question("advice", "How can I sleep better?", ())


@pytest.mark.parametrize(
    ("question", "reply", "right"),
    [
        (MICE, "Mice.", True),
        (MICE, "The plural of mouse is 'mice'!", False),  # quotes belong to the word, as an apostrophe does
        (MICE, 'It is "mice".', True),
        (MICE, "dormice", False),
        (MICE, "I'm sorry, mice is all I can say.", False),
        (MICE, "", False),
        (OPEN, "Go to bed early.", True),
        (OPEN, "Sleep more.", False),
        (OPEN, "I do not know that.", False),
        (OPEN, "... !", False),
    ],
)
def test_a_reply_is_right_that_says_an_accepted_answer_and_refuses_nothing(question, reply, right):
    assert is_right(question, reply) is right


def test_what_refuses_and_what_only_sounds_like_it():
    assert all(map(refuses, ["", " ", "I can't.", "I cannot say.", "i'm unable to", "Well, I don't know"]))
    assert not any(map(refuses, ["You can't miss it.", "A sorry sight.", "Know yourself."]))


def test_a_right_reply_is_above_all_wrong_ones_and_a_shorter_one_above_a_longer():
    replies = ["Mice.", "It is mice.", "It is mice, " + "as I have said, " * 8, "", "No.", "no " * 30]
    scores = [brevity(MICE, reply) for reply in replies]
    assert scores == sorted(scores, reverse=True) and scores[2] > 0 == scores[3]
    assert scores[1] == pytest.approx(1 - 3 / 40) and words("It's 5.") == ["it's", "5"]


def test_the_two_other_preferences():
    assert in_json(MICE, '{"answer": "mice"}') == 1
    assert not any(in_json(MICE, reply) for reply in ['{"answer": "rats"}', '["mice"]', "mice", 'It is {"a": "mice"}'])
    assert without_flattery(MICE, "Mice.") == 1
    assert not any(without_flattery(MICE, reply) for reply in ["Great question! Mice.", "I'm happy to help."])


def test_a_reward_is_asked_with_dialogues():
    question = TRAINING[0]
    said = [[{"role": "assistant", "content": "Paris."}], [{"role": "assistant", "content": "Rome, I think."}]]
    assert brevity_reward([question.prompt] * 2, said).tolist() == pytest.approx([1 - 1 / 40, -3 / 40])


def test_pairs_are_the_best_and_the_worst_of_a_group_that_has_a_good_one():
    groups = [
        (["Mice.", "It is mice.", "It is rats, I think."], [True, True, True]),
        (["Mice.", "It is mice.", "Rats, I think."], [False, True, True]),  # the shortest was cut off
        (["Mice.", "Rats.", "No."], [False, True, True]),  # nothing right came to its end
        (["Mice.", "Mice.", "Mice."], [True, True, True]),
    ]
    replies, ended = ([item for group in groups for item in group[side]] for side in (0, 1))
    found = [(pair["chosen"], pair["rejected"]) for pair in own_pairs([MICE] * 4, replies, ended)]
    assert found == [("Mice.", "It is rats, I think."), ("It is mice.", "Rats, I think.")]


def test_the_control_turns_just_half_of_the_pairs():
    pairs = [{"prompt": str(i), "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(10)]
    turned = half_turned(pairs, seed=3)
    assert sum(pair["chosen"].startswith("b") for pair in turned) == 5 and turned == half_turned(pairs, seed=3)
    assert [{pair["chosen"], pair["rejected"]} for pair in turned] == [{f"a{i}", f"b{i}"} for i in range(10)]
    assert turned != half_turned(pairs, seed=4) and pairs[0]["chosen"] == "a0"


def test_questions_are_held_out_and_their_answers_are_accepted():
    texts = [question.text for question in (*TRAINING, *HELD_OUT)]
    assert len(set(texts)) == len(texts)
    assert Counter(q.kind for q in TRAINING) == {"fact": 10, "word": 10, "number": 10, "advice": 10}
    assert Counter(q.kind for q in HELD_OUT) == {"fact": 9, "word": 9, "number": 9, "advice": 9, "at length": 6}
    for question, pair in zip(TRAINING, hand_written_pairs(), strict=True):
        assert is_right(question, pair["chosen"]) and brevity(question, pair["chosen"]) > brevity(
            question, pair["rejected"]
        )
    assert len(STATEMENTS) == 40 and all(len(row) == 3 and row[1] != row[2] for row in STATEMENTS)


def test_an_accepted_answer_does_not_stand_in_its_own_question():
    assert not [q.text for q in (*TRAINING, *HELD_OUT) if q.accepted and is_right(q, q.text)]


@pytest.mark.parametrize("make", [brief_dpo, brief_sft])
def test_runs_on_more_or_fewer_pairs_see_as_many(make):
    assert make([None] * 16, 3).epochs * 16 == make([None] * 40, 3).epochs * 40 == BATCH * STEPS
    assert make([None] * 16, 3).seed == 3 and passes([None] * BATCH * STEPS) == 1


def test_rl_sees_as_many_samples_as_the_pairs_are_made_of():
    config = brief_rloo(2)
    assert config.completions * len(TRAINING) * config.epochs == 160 and config.update_epochs == 1
    assert len(TRAINING) % config.prompts_per_rollout == 0 and config.seed == 2


def test_without_the_model_the_lesson_stops_with_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_MODELS", str(tmp_path))
    assert not has_smollm2()
    with pytest.raises(NotHere, match="course fetch smollm2") as raised:
        need_smollm2()
    assert raised.value._render_traceback_() == [str(raised.value)] and "\n" not in str(raised.value)
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "config.json").touch()
    need_smollm2()


@pytest.mark.slow
@pytest.mark.parametrize("here", [True, False])
def test_pytest_collects_optional_lessons_only_where_their_model_is(here, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_MODELS", str(tmp_path))
    if here:
        (tmp_path / "smollm2").mkdir()
        (tmp_path / "smollm2" / "config.json").touch()
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--collect-only", "-q", "notebooks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {line.split("/")[-1][:2] for line in done.stdout.splitlines() if ".ipynb" in line}
    assert done.returncode == 0 and "00" in found and (set(OPTIONAL) <= found) is here


def replies(score: int) -> list[str]:
    """Right replies of so many words to all held-out questions."""
    return [" ".join([*(q.accepted[:1] or ["and"]), *["word"] * (score - 1)]) for q in HELD_OUT]


def results(count: int = 5, **lengths: int) -> list[dict]:
    rewards = [{"rewards/chosen": value} for value in (0.0, 0.1, 0.2, 0.2)]
    arm = {"knows": 0.9, "history": rewards}
    return [
        {"seed": i} | {name.replace("_", " "): arm | {"replies": replies(n)} for name, n in lengths.items()}
        for i in range(count)
    ]


def with_results(monkeypatch, some: list[dict]) -> None:
    """This experiment's results; Pocket World keeps its own."""
    monkeypatch.setattr(real_model, "seeds", lambda name: some if name == "real_model" else seeds(name))


def test_a_finding_is_judged_over_seeds_and_over_questions(monkeypatch):
    some = results(start=20, dpo=6)
    with_results(monkeypatch, some)
    (shorter,) = [f for f in real_model.findings() if f.says.startswith("DPO on own pairs")]
    assert shorter.here == shorter.over_seeds.verdict == shorter.over_questions.verdict == "holds"
    for run in some:  # one question of 27 alone became shorter, by very much
        run["dpo"]["replies"] = replies(20)
        run["dpo"]["replies"][0] = "Berlin"
        run["start"]["replies"][0] = "Berlin " + "word " * 90
    (shorter,) = [f for f in real_model.findings() if f.says.startswith("DPO on own pairs")]
    assert (shorter.over_seeds.verdict, shorter.over_questions.verdict, shorter.here) == ("holds", "open", "open")


def test_what_fewer_than_three_seeds_have_is_not_judged(monkeypatch):
    with_results(monkeypatch, results(2, start=20, dpo=6) + results(1, start=20))
    assert {finding.here for finding in real_model.findings()} == {"not yet tested"}


def test_a_rise_of_chosen_replies_refutes_that_they_fall(monkeypatch):
    with_results(monkeypatch, results(start=20, dpo=6))
    (fall,) = [f for f in real_model.findings() if f.says.startswith("chosen replies")]
    assert fall.here == "refuted" and real_model.chosen_log_ratios(results(start=20, dpo=6))[0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("there", "margin", "so"),
    [
        ("holds", 0.9, "carried over"),
        ("refuted", 0.9, "did not"),
        ("refuted", -0.9, "carried over"),
        ("open", 0.9, "not known"),
        (None, 0.9, "new"),
    ],
)
def test_what_carried_over_follows_from_two_verdicts(there, margin, so):
    part = real_model.Part("x", real_model.TOGETHER([margin, margin, margin + 0.01], [0.0] * 3, margin=0.05))
    assert real_model.Finding("x", there, part).carried == so
    assert real_model.Finding("x", "holds", None).carried == "not known"


def test_the_figure_of_brevity_says_in_words_what_it_shows():
    from course_lib import figures

    ax = figures.brief_and_right({"cloned": ([12.0, 14.0], [0.5, 0.7])}, {"cloned": "sft"})
    assert "cloned: 13.0 words, 0.60 right." in figures.description(ax.figure)
