"""What a learner is told: verdicts on wrong answers of every kind, hints, progress, and a checker kept straight."""

import json
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.grading import Draw, Mistake, Property, Task, Verdict, check, hint, progress
from course_lib.grading.bank import UnknownTask, task_of, tasks_of
from course_lib.grading.comparing import agree, shown, size
from course_lib.grading.display import Report
from course_lib.grading.mutation import mutants
from course_lib.grading.notebook import packed
from course_lib.grading.outcomes import read
from course_lib.grading.proof import doubled, faults, proof_of, survivors, verdict_on, worthless
from course_lib.grading.records import load, next_hint, progress_file, record
from course_lib.grading.worker import decode, encode, outcome


def mean_square(values, *, scale):
    return scale * (values**2).mean()


def mean_square_by_hand(values, *, scale):
    total = 0.0
    for value in values:
        total = total + value * value
    return scale * total / len(values)


def the_task(**changes) -> Task:
    settings = dict(
        id="04.9", title="A mean square", kind="implement", points=2, difficulty="easy", minutes=1,
        reference=mean_square, also_correct=[mean_square_by_hand], hints=["one", "two"],
        gradient_of=("values",),
        properties=[
            Property("one number", lambda draw: [{"values": draw.numbers(1, low=1, high=2), "scale": 2.0}]),
            Property("many", lambda draw: [{"values": draw.distinct(4), "scale": draw.number(2, 3)} for _ in range(3)]),
        ],
        mistakes=[
            Mistake("the sum", "why", "04, The loop", edit=(".mean()", ".sum()")),
            Mistake("no scale", "why", "04, The loop", edit=("scale * ", "")),
            Mistake("the cube", "why", "04, The loop", edit=("**2", "**3")),
        ],
    )  # fmt: skip
    return Task(**settings | changes)


TASK = the_task()


def says(function) -> Verdict:
    return verdict_on(TASK, function)


def test_a_right_answer_gets_all_points_and_no_diagnosis():
    found = says(lambda values, *, scale: (values * values * scale).sum() / len(values))
    assert found.passed and found.points == 2 and found.diagnosis is None and found.example is None


def test_a_known_mistake_is_named_with_its_lesson_and_shown_on_the_smallest_input():
    found = says(lambda v, *, scale: scale * v.pow(2).sum())
    assert found.points == 0 and found.diagnosis.mistakes == ("the sum",) and found.diagnosis.lesson == "04, The loop"
    assert dict(found.properties) == {"one number": True, "many": False}
    assert found.example.property == "many" and found.example.call.startswith("mean_square(values=[")


def test_two_mistakes_at_once_are_both_named():
    found = says(lambda v, *, scale: (v**3).sum() * scale)
    assert set(found.diagnosis.mistakes) == {"the sum", "the cube"}


def test_a_mistake_that_nobody_foresaw_names_the_property_and_the_smallest_input():
    found = says(lambda v, *, scale: scale * (v**2).median())
    assert not found.diagnosis.mistakes and "many" in found.diagnosis.says and "values=" in found.example.call


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda v, *, scale: -scale * (v**2).mean(), "wrong sign"),
        (lambda v, *, scale: 3 * scale * (v**2).mean(), "same factor"),
        (lambda v, *, scale: scale * (v**2).mean() + 5, "same amount"),
        (lambda v, *, scale: scale * (v**2).mean()[None], "shape (1,)"),
        (lambda v, *, scale: scale * (v**2).mean().detach(), "gradients are not"),
        (lambda v, *, scale: torch.tensor(3.0), "same whatever"),
        (lambda v, *, scale: v.sum() * float("nan"), "NaN"),
        (lambda v, *, scale: None, "returns nothing"),
        (lambda v, *, scale: 1 / 0, "raises ZeroDivisionError on every input"),
        (lambda v: v, "raises TypeError"),
        (lambda v, *, scale: {v}, "raises TypeError"),
    ],
)
def test_what_is_wrong_is_said_for_all_inputs_at_once(function, expected):
    assert expected in says(function).diagnosis.says


def test_another_container_than_the_wanted_one_is_told_so():
    wanted = lambda values, *, scale: {"mean": float(values.mean()), "list": [float(values.sum())]}  # noqa: E731
    task = the_task(reference=wanted, gradient_of=(), mistakes=())
    for wrong in (lambda v, *, scale: float(v.mean()), lambda v, *, scale: {"mean": float(v.mean())}):
        assert "a dict with the keys 'mean', 'list'" in verdict_on(task, wrong).diagnosis.says


def test_numbers_of_numpy_and_torch_are_numbers_in_a_dict_too():
    wanted = lambda values, *, scale: {float(values[0]): {"a": float(values.sum())}}  # noqa: E731
    task = the_task(reference=wanted, gradient_of=(), mistakes=())
    assert verdict_on(task, lambda v, *, scale: {v.numpy()[0].astype(np.float64): {"a": v.numpy().sum()}}).passed
    assert verdict_on(task, lambda v, *, scale: {v[0].double(): {"a": v.double().sum()}}).passed


def test_an_answer_that_is_not_written_is_told_so():
    def stub(values, *, scale):
        raise NotImplementedError

    assert says(stub).diagnosis.says == "it is not written yet"


def test_a_verdict_never_holds_the_right_value():
    case = TASK.draw_cases(0)
    right = [float(TASK.reference(**inputs)) for _, inputs in case]
    text = repr(Report(verdict_on(TASK, lambda v, *, scale: torch.tensor(1.0), 0)))
    assert not [value for value in right if f"{value:.4g}" in text]


def test_an_input_that_is_changed_in_place_is_noted():
    def answer(values, *, scale):
        with torch.no_grad():
            result = scale * (values**2).mean()
            values += 1
        return result

    found = verdict_on(the_task(gradient_of=()), answer)
    assert found.passed and "values" in found.notes[0]


def test_several_right_answers_are_judged_by_what_is_accepted():
    task = the_task(gradient_of=(), accepts=lambda inputs, value: value > float(mean_square(**inputs)))
    assert verdict_on(task, lambda v, *, scale: 1e6).passed
    assert not verdict_on(task, mean_square).passed and not verdict_on(task, lambda v, *, scale: "much").passed


# ---- plain data


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(10**40),
        0.1,
        float("inf"),
        "text",
        [1, [2.5, "a"]],
        {"a": [1], 2: None},
        np.arange(3),
        np.float32(2),
    ],
)
def test_plain_data_comes_back_as_it_went(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert np.array_equal(back, value) if isinstance(value, (np.ndarray, np.generic)) else back == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_with_their_shape(dtype):
    tensor = torch.tensor([[1, 0, 1]], dtype=dtype)
    assert np.array_equal(decode(encode(tensor)), tensor.float().numpy())


def test_objects_are_no_plain_data():
    with pytest.raises(TypeError, match="object of type set"):
        encode({1})


@pytest.mark.parametrize(
    "forged",
    [
        3,
        {"array": "AA==", "dtype": "object", "shape": [1]},
        {"array": "AA==", "dtype": "float32", "shape": [9]},
        {},
        [1],
    ],
)
def test_forged_data_raise_and_are_never_a_value(forged):
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(forged)


def test_values_agree_up_to_rounding_and_shape():
    close = {"rtol": 1e-3, "atol": 1e-6}
    assert agree(1.0, np.array(1.0001), **close) and agree(np.array([1.0, 2.0]), [1, 2], **close)
    assert agree({"a": [1, "x"]}, {"a": [1.0, "x"]}, **close)
    for one, other in (
        (1.0, [1.0]),
        (1.0, "1.0"),
        (None, 0),
        ("a", "b"),
        ({"a": 1}, {"a": 1, "b": 2}),
        (float("nan"),) * 2,
    ):
        assert not agree(one, other, **close)


def test_inputs_are_shown_short_and_counted():
    assert shown({"a": torch.tensor([0.1234567])}) == "{'a': [0.123457]}" and len(shown(list(range(1000)), 50)) == 50
    assert size({"a": torch.zeros(2, 3), "b": [1, 2]}) == 8


EMPTY_BUT_WIDE = {"array": "", "dtype": "float32", "shape": [10**9, 0]}
FORGED = [
    7, [], {"undefined": 7}, {"error": "x"}, {"value": 1}, {"value": EMPTY_BUT_WIDE},
    {"value": {"list": [None] * 30_000}}, {"value": None, "changed": [[1], "a"]}, {"error": {"message": "\ud800\x1b"}},
]  # fmt: skip


@pytest.mark.parametrize("raw", FORGED)
def test_whatever_a_worker_sends_becomes_an_outcome(raw):
    found = read(raw)
    text = f"{found.error}{found.undefined}{found.changed}"
    assert text.encode("utf-8") and text.isprintable() and not isinstance(found.value, np.ndarray)


def test_a_gradient_that_does_not_flow_counts_as_zeros():
    found = outcome(lambda x: x.detach().sum(), {"x": torch.ones(2)}, gradient_of=("x",))
    assert decode(found["gradients"])["x"].tolist() == [0, 0]


# ---- the proof of a bank


def test_a_sound_task_is_proved():
    said, found = proof_of(TASK)
    assert not found and not faults(TASK) and "3 mistakes" in said


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mistakes": TASK.mistakes[:2]}, "fewer than 3"),
        ({"hints": ["one"]}, "fewer than 2"),
        ({"also_correct": []}, "written in another way"),
        ({"also_correct": [lambda values, *, scale: scale]}, r"also_correct[0] fails"),
        ({"kind": "guess"}, "its kind"),
        ({"properties": TASK.properties[:1]}, "'the sum' passes"),
        (
            {"mistakes": [*TASK.mistakes, Mistake("sum again", "", "", edit=(".mean()", ".sum(0)"))]},
            "'sum again' is taken for",
        ),
        ({"mistakes": [*TASK.mistakes, Mistake("gone", "", "", edit=("median", "sum"))]}, "'gone' cannot be made"),
        ({"accepts": lambda inputs, value: True, "gradient_of": ()}, "knows nothing gets points"),
    ],
)
def test_an_unsound_task_is_told_why(changes, fault):
    assert fault in " ".join(faults(the_task(**changes)))


def test_machine_mutants_are_made_and_those_that_inputs_cannot_tell_survive():
    assert {"`.mean` -> `.sum`" in said or "mean" in said for said, _ in mutants(TASK.source)}
    assert not survivors(TASK)
    blind = the_task(properties=[Property("one number", lambda draw: [{"values": torch.ones(1), "scale": 1.0}])])
    assert len(survivors(blind)) >= 2


def test_worthless_answers_include_a_right_constant_and_the_inputs():
    names = " ".join(worthless(TASK))
    assert "input 0" in names and "tensor(" in names and "raises" in names


def test_doubles_reach_the_reference():
    seen = []
    task = the_task(reference=lambda values, *, scale: seen.append(values.dtype))
    doubled(task)(torch.ones(1), scale=1.0)
    assert seen == [torch.float64]


def test_drawn_inputs_are_new_each_time_and_repeat_with_a_seed():
    def numbers(seed):
        return [inputs["values"].tolist() for _, inputs in TASK.draw_cases(seed)]

    assert numbers(1) == numbers(1) and numbers(None) != numbers(None)
    draw = Draw(0)
    assert draw.mask(3, 4).any(1).all() and len(set(draw.distinct(50).tolist())) == 50
    assert draw.integers(2, 2, low=1, high=3).dtype == torch.int64


# ---- what is kept


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "folder" / "progress.json"))
    return tmp_path / "folder" / "progress.json"


def tried(points: int) -> Verdict:
    return Verdict("04.2", "DPO's loss", points, 3)


def test_points_once_earned_stay_and_tries_are_counted(kept):
    for points in (0, 3, 0):
        record(tried(points))
    entry = load()["tasks"]["04.2"]
    assert (entry["points"], entry["tries"]) == (3, 3) and "solved" in entry and progress_file() == kept


def test_hints_come_one_by_one_and_end(kept):
    hints = task_of("04.2").hints
    found = [next_hint("04.2")["text"] for _ in range(len(hints) + 1)]
    assert found == [*hints, None]


def test_an_unreadable_file_is_put_aside_not_lost(kept):
    kept.parent.mkdir()
    kept.write_text('{"tasks": ')
    record(tried(3))
    assert load()["tasks"]["04.2"]["points"] == 3
    assert [path.read_text() for path in kept.parent.glob("*unreadable*")] == ['{"tasks": ']


def test_progress_of_another_edition_is_read_and_what_it_has_more_stays(kept):
    kept.parent.mkdir()
    kept.write_text(json.dumps({"format": 9, "tasks": {"04.2": {"points": 3}, "99.9": {"points": 1}}, "more": 1}))
    record(tried(0))
    assert load()["tasks"]["04.2"]["points"] == 3 and load()["tasks"]["99.9"] == {"points": 1} and load()["more"] == 1


# ---- a notebook's face


def dpo(a, b, c, d, *, beta=0.1):
    return -F.logsigmoid(beta * ((a - b) - (c - d).detach())).mean()


@pytest.mark.slow
def test_a_check_answers_within_two_seconds_with_points_and_a_table():
    check("04.2", dpo)  # the first one may wait until the checker has started
    start = time.monotonic()
    found = check("04.2", dpo)
    assert found.passed and found.points == 3 and not found.mistakes and time.monotonic() - start < 2
    assert "✓ holds" in found._repr_html_() and "3 of 3 points" in repr(found)


@pytest.mark.slow
def test_a_wrong_answer_is_named_in_the_notebook_and_hints_and_progress_follow():
    found = check("04.2", lambda a, b, c, d, *, beta: dpo(b, a, d, c, beta=beta))
    assert found.mistakes == ("the pair is swapped",) and "✗ fails" in found._repr_html_()
    assert "hint 1 of" in repr(hint("04.2")) or "hint" in repr(hint("04.2"))
    assert "DPO from scratch" in repr(progress()) and "points" in progress()._repr_html_()


@pytest.mark.slow
def test_a_closure_a_partial_and_an_object_can_be_answers():
    from functools import partial

    class Loss:
        def __call__(self, a, b, c, d, *, beta):
            return dpo(a, b, c, d, beta=beta)

    helper = dpo
    assert check("04.2", lambda *args, beta: helper(*args, beta=beta)).passed
    assert check("04.2", partial(dpo)).passed and check("04.2", Loss()).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "no such function yet"),
        (3.0, "float is not a function"),
        ((i for i in ()), "generator is not a function"),
    ],
)
def test_what_is_no_function_is_told_so(answer, told):
    assert told in check("04.2", answer).verdict.diagnosis.says


@pytest.mark.slow
def test_a_cached_function_is_an_answer_and_the_task_comes_first():
    from functools import lru_cache

    assert check("04.2", lru_cache(dpo)).passed
    with pytest.raises(ValueError, match="task comes first"):
        check(dpo, "04.2")


@pytest.mark.slow
def test_the_librarys_own_function_is_no_answer():
    from course_lib import dpo_loss

    assert "course_lib" in check("04.2", dpo_loss).verdict.diagnosis.says
    assert "course_lib" in check("04.2", lambda *args, beta: dpo_loss(*args, beta=beta)).verdict.diagnosis.says


@pytest.mark.slow
def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean .*'04.2'"):
        check("4.2", dpo)
    with pytest.raises(UnknownTask):
        tasks_of("99")


@pytest.mark.slow
def test_an_interrupted_check_does_not_confuse_the_next(monkeypatch):
    from course_lib.grading.checker import THE_CHECKER

    process = THE_CHECKER.process
    monkeypatch.setattr(process.stdin, "flush", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        check("04.2", dpo)
    monkeypatch.undo()
    assert check("04.2", dpo).passed and THE_CHECKER.process is not process


def test_data_that_is_too_large_is_not_dragged_along():
    data = torch.zeros(10**7)
    with pytest.raises(Exception, match="drags large data"):
        packed(lambda a: a + data)
    lock = __import__("threading").Lock()
    with pytest.raises(Exception, match="cannot be sent"):
        packed(lambda a: lock)


def test_the_readme_shows_what_a_check_says():
    from pathlib import Path

    task = task_of("04.2")
    (mistake,) = (each for each in task.mistakes if each.name == "beta is applied twice")
    said = repr(Report(verdict_on(task, task.mutant(mistake)))).partition("\n\nThe smallest")[0]
    assert said in (Path(__file__).parent.parent / "README.md").read_text()
