"""The ledger: every claim has its source and rule, verdicts follow the results, and they are computed nowhere else."""

import json
import re
import sys
from pathlib import Path

import pytest

from course_lib import claims, world
from course_lib.claims import LEDGER, SOURCES, VERDICTS, Claim, Judgement, claim, direct, failures, family
from course_lib.claims.judging import by_interval, contrast, of_parts, over_seeds
from course_lib.lessons import curriculum

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_pages_say_what_the_results_say():
    sys.path.insert(0, str(ROOT / "experiments"))
    import reports

    for name, page in reports.PAGES.items():
        assert (ROOT / name).read_text() == page(), name


def test_every_claim_says_who_what_and_by_which_rule():
    assert len(LEDGER) == len({row.id for row in LEDGER}) > 25
    planned = {number for number, _, _ in curriculum.LESSONS}
    for row in LEDGER:
        assert row.text.startswith(re.match(r"[A-Z]\d+", row.id)[0]), row.id
        assert set(row.source.split(", ")) <= set(SOURCES), row.id
        assert len(row.rule) > 20 and set(row.lessons) <= planned, row.id


@pytest.mark.slow
@pytest.mark.parametrize("row", LEDGER, ids=lambda row: row.id)
def test_every_verdict_is_one_of_those_that_there_are_and_has_a_figure(row):
    verdict, figure = row.judge()
    assert verdict in VERDICTS and len(figure) > 20


def test_an_unknown_claim_is_refused_with_those_that_there_are():
    with pytest.raises(KeyError, match="no claim 'X9'; the ledger has P1, "):
        claim("X9")


@pytest.mark.parametrize(
    ("parts", "verdict"), [([True, True], "holds"), ([True, False], "holds in part"), ([False, False], "refuted")]
)
def test_a_claim_of_several_parts(parts, verdict):
    assert of_parts(parts) == verdict


@pytest.mark.parametrize(
    ("seeds", "verdict"), [([True] * 3, "holds"), ([True, False], "depends on the seed"), ([False], "refuted")]
)
def test_a_claim_over_seeds(seeds, verdict):
    assert over_seeds(seeds) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 1, "holds"), (-1, -0.1, "refuted"), (-1, 1, "open"), (0, 1, "open")]
)
def test_a_claim_about_an_interval(low, high, verdict):
    assert by_interval(low, high) == verdict


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())["seeds"]


def with_results(monkeypatch, module, runs):
    monkeypatch.setattr(module, "seeds", lambda name: runs)


def test_displacement_is_refuted_by_log_ratios_that_rise(monkeypatch):
    runs = results("pocket_world")
    for run in runs:
        run["dpo"]["held_out"]["log_ratio_chosen"] *= -1
    with_results(monkeypatch, direct, runs)
    assert claim("O2").judge().verdict == "refuted"
    runs[0]["dpo"]["held_out"]["log_ratio_chosen"] *= -1
    assert claim("O2").judge().verdict == "depends on the seed"


def test_sft_first_is_refuted_by_a_base_model_that_does_as_well(monkeypatch):
    runs = results("pocket_world")
    for run in runs:
        run["dpo_from_base"]["gold"]["0.0"] = run["sft"]["gold"]["0.0"] + 1
    with_results(monkeypatch, direct, runs)
    assert claim("O6").judge().verdict == "refuted"


def test_what_pairs_mention_must_gain_more_than_the_rest(monkeypatch):
    runs = results("pocket_world")
    for run in runs:
        right = run["misconceptions_right"]
        right["seen"], right["unseen"] = {"sft": 0.1, "dpo": 0.2}, {"sft": 0.1, "dpo": 0.3}
    with_results(monkeypatch, direct, runs)
    assert claim("P5").judge().verdict == "refuted"


@pytest.mark.parametrize(("gold", "verdict"), [(-9.0, "holds"), (9.0, "refuted")])
def test_a_mismatched_reference_breaks_dpo_if_it_falls_below_sft(monkeypatch, gold, verdict):
    runs = results("dpo_failures")
    for run in runs:
        run["base as reference"]["gold"] = gold
    with_results(monkeypatch, failures, runs)
    assert claim("O5").judge().verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(-3.0, "holds"), (3.0, "refuted")])
def test_dpo_hacks_its_reward_if_the_margin_rises_and_gold_falls(monkeypatch, shift, verdict):
    runs = results("dpo_failures")
    for run in runs:
        run["long"]["gold"] = run["long, ipo"]["gold"] + shift
    with_results(monkeypatch, failures, runs)
    assert claim("N2").judge().verdict == verdict


@pytest.mark.parametrize(("cured", "verdict"), [((), "refuted"), (("simpo",), "holds in part"),
                                                (("simpo", "dpo-mean"), "holds")])  # fmt: skip
def test_normalisation_cures_a_liking_for_length_where_replies_stop_growing(monkeypatch, cured, verdict):
    runs = results("family")
    for i, run in enumerate(runs):
        run["long"]["dpo"]["tokens"] = run["clean"]["dpo"]["tokens"] + 9 + 0.1 * i
        for method in ("simpo", "dpo-mean"):
            more = 0.1 * (i - 1) if method in cured else 6 + 0.1 * i
            run["long"][method]["tokens"] = run["clean"][method]["tokens"] + more
    with_results(monkeypatch, family, runs)
    assert claim("R2b").judge().verdict == verdict


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "refuted")])
def test_noise_orders_methods_only_where_every_interval_says_so(monkeypatch, sign, verdict):
    runs, order = results("family"), {"dpo": 9, "kto": 5, "ipo": 2, "simpo": 1}
    for i, run in enumerate(runs):
        for method, lost in order.items():
            run["noisy"][method]["gold"] = run["clean"][method]["gold"] - sign * lost - 0.001 * i
    with_results(monkeypatch, family, runs)
    assert claim("R3").judge().verdict == verdict


def test_without_the_repository_the_ledger_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(claims.results, "__file__", str(tmp_path / "a" / "results.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="in a clone of it"):
        claims.seeds("family")


WORDS = re.compile(r"""["'](holds|refuted|holds in part|depends on the \w+)["']""")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name[:2])
def test_no_lesson_computes_a_verdict_of_its_own_or_reaches_outside_the_package(path):
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert not WORDS.search(source), source
            assert "sys.path" not in source, source


def test_a_claim_gives_the_judgement_that_it_measures():
    judged = Judgement("holds", "1 of 1")
    assert Claim("X1", "X1: all is well", "A", "by looking", lambda: judged, ("00",)).judge() is judged


def test_all_claims_that_learners_meet_have_a_row():
    counts = {"P": 7, "M": 10, "S": 3, "O": 8, "R": 8, "N": 4, "D": 3}
    wanted = {f"{letter}{n}" for letter, count in counts.items() for n in range(1, count + 1)}
    assert {row.id.rstrip("ab") for row in LEDGER} == wanted and len(wanted) == 43


ZEROS = [0.0] * 5


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.5, 0.6, 0.55, 0.52, 0.58], "holds"),
        ([0.01, -0.01, 0.0, 0.02, -0.02], "refuted"),
        ([-0.5, -0.6, -0.55, -0.52, -0.58], "refuted"),
        ([0.5, -0.4, 0.3, 0.1, -0.1], "open"),
    ],
)
def test_a_contrast_is_decided_by_its_interval_and_the_margin(differences, verdict):
    found = contrast(differences, ZEROS, margin=0.05)
    assert found.verdict == verdict and found.low < found.mean < found.high


def test_more_claims_make_a_verdict_harder():
    differences = [0.2, 0.3, 0.25, 0.2, 0.4]
    alone, together = (contrast(differences, ZEROS, margin=0.05, claims=k) for k in (1, 40))
    assert alone.verdict == "holds" and together.verdict == "open" and together.low < alone.low


def test_a_seed_that_carries_a_verdict_alone_is_shown():
    found = contrast([0.3, 0.32, 0.31, 0.29, -0.9], ZEROS, margin=0.05)
    assert found.verdict == "open" and found.without[4] == "holds" and set(found.without[:4]) == {"open"}


def test_two_seeds_are_too_few_for_a_contrast():
    with pytest.raises(ValueError, match="three seeds"):
        contrast([1.0, 2.0], [0.0, 0.0], margin=0.1)
    with pytest.raises(ValueError, match="at least 0"):
        contrast([1.0] * 3, [0.0] * 3, margin=-1)


def test_results_of_another_edition_of_the_world_are_known_as_such(tmp_path, monkeypatch):
    from course_lib.claims import of_this_world
    from course_lib.claims import results as committed

    monkeypatch.setattr(committed, "folder", lambda: tmp_path)
    for name, text in (("first", '{"seeds": []}'), ("now", f'{{"edition": {world.EDITION}, "seeds": []}}')):
        (tmp_path / f"{name}.json").write_text(text)
    assert of_this_world("now") and not of_this_world("first")
