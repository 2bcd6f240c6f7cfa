"""The ledger: every claim has its source and rule, verdicts follow the results, and they are computed nowhere else."""

import json
import re
import sys
from pathlib import Path

import pytest

from course_lib import claims, world
from course_lib.claims import (
    LEDGER,
    SOURCES,
    VERDICTS,
    Claim,
    Judgement,
    claim,
    direct,
    failures,
    family,
    labels,
    needs,
    objectives,
    online,
)
from course_lib.claims.judging import Part, contrast, in_words, of_contrasts, of_parts
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
    judged = row.judge()
    assert judged.verdict in VERDICTS and judged.found.endswith(".")
    assert len(judged.figure) > 20 or judged.verdict == "not yet tested"


def test_an_unknown_claim_is_refused_with_those_that_there_are():
    with pytest.raises(KeyError, match="no claim 'X9'; the ledger has P1, "):
        claim("X9")


@pytest.mark.parametrize(
    ("parts", "verdict"), [((True, True), "holds"), ((True, False), "holds in part"), ((False, False), "refuted")]
)
def test_a_claim_of_several_exact_parts(parts, verdict):
    judged = of_parts(dict(zip(("a", "b"), parts, strict=True)), "1 of 2")
    assert judged.verdict == verdict and judged.figure == "1 of 2"


def test_a_claim_that_holds_in_part_names_its_halves():
    judged = of_parts({"the sun is warm": True, "the moon is too": False}, "", mixed="depends on the batch")
    assert judged.verdict == "depends on the batch"
    assert judged.found == "So: the sun is warm. Not so: the moon is too."


ZEROS = [0.0] * 5
UP, FLAT, WIDE = [0.5, 0.6, 0.55, 0.52, 0.58], [0.01, -0.01, 0.0, 0.02, -0.02], [0.5, -0.4, 0.3, 0.1, -0.1]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([UP, UP], "holds"),
        ([UP, FLAT], "holds in part"),
        ([UP, WIDE], "holds in part"),
        ([FLAT, FLAT], "refuted"),
        ([FLAT, WIDE], "open"),
        ([WIDE, WIDE], "open"),
    ],
)
def test_a_claim_about_runs_by_its_contrasts(differences, verdict):
    parts = [Part(f"part {i}", contrast(d, ZEROS, margin=0.05)) for i, d in enumerate(differences)]
    assert of_contrasts(*parts).verdict == verdict


def test_a_part_that_claims_no_difference_is_read_the_other_way_round():
    verdicts = [Part("none", contrast(d, ZEROS, margin=0.05), absent=True).verdict for d in (UP, FLAT, WIDE)]
    assert verdicts == ["refuted", "holds", "open"]


def test_beside_a_part_stand_greedy_replies_and_the_seeds_that_carry_it():
    carried = Part(
        "a is above b", contrast([0.3, 0.32, 0.31, 0.29, -0.9], ZEROS, margin=0.05), contrast(UP, ZEROS, margin=0.05)
    )
    assert "without the 5th seed holds" in carried.figure and "greedily +0.55, holds" in carried.figure
    assert "without the 1st" not in carried.figure
    assert "the same without any one seed" in Part("up", contrast(UP, ZEROS, margin=0.05)).figure


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())["seeds"]


def with_results(monkeypatch, module, runs):
    monkeypatch.setattr(module, "seeds", lambda name: runs)


def nudged(values, runs, *path):
    """Put `values` (and a little of the seed's own) at a path of each run."""
    for i, run in enumerate(runs):
        for key in path[:-1]:
            run = run[key]
        run[path[-1]] = values + 0.001 * i


@pytest.mark.parametrize(("ratio", "verdict"), [(-3.0, "holds"), (3.0, "refuted")])
def test_displacement_is_a_fall_of_chosen_replies(monkeypatch, ratio, verdict):
    runs = results("pocket_world")
    nudged(ratio, runs, "dpo", "chosen")
    with_results(monkeypatch, direct, runs)
    assert claim("O2").judge().verdict == verdict


@pytest.mark.parametrize(("gold", "verdict"), [(-9.0, "holds"), (9.0, "refuted")])
def test_sft_first_is_refuted_by_a_base_model_that_does_as_well(monkeypatch, gold, verdict):
    runs = results("pocket_world")
    nudged(gold, runs, "dpo_from_base", "gold_sampled")
    with_results(monkeypatch, direct, runs)
    assert claim("O6").judge().verdict == verdict


@pytest.mark.parametrize(("unseen", "verdict"), [(0.1, "holds"), (0.2, "holds in part"), (0.9, "refuted")])
def test_what_pairs_mention_must_gain_more_and_the_rest_nothing(monkeypatch, unseen, verdict):
    runs = results("pocket_world")
    for where, gained in (("seen", 0.6), ("unseen", unseen)):
        nudged(0.1, runs, "misconceptions_right", where, "sft")
        nudged(gained, runs, "misconceptions_right", where, "dpo")
    with_results(monkeypatch, direct, runs)
    assert claim("P5").judge().verdict == verdict


def test_rivals_are_compared_at_sfts_best_temperature_on_tuning_prompts(monkeypatch):
    runs = results("pocket_world")
    for run in runs:
        run["sft"]["by_temperature"] = {
            "tuning": {"0.0": 0.0, "0.25": 9.0, "0.5": 0.0, "0.75": 0.0, "1.0": 99.0},
            "test": {"0.0": 50.0, "0.25": -50.0, "0.5": 50.0, "0.75": 50.0, "1.0": 50.0},
        }
    with_results(monkeypatch, direct, runs)
    assert {direct.best_temperature(run) for run in runs} == {"0.25"}
    assert direct.comparisons()[0].verdict == "holds"


@pytest.mark.parametrize(("gold", "verdict"), [(-9.0, "holds"), (9.0, "refuted")])
def test_a_mismatched_reference_breaks_dpo_if_it_falls_below_sft(monkeypatch, gold, verdict):
    runs = results("dpo_failures")
    nudged(gold, runs, "base as reference", "gold_sampled")
    with_results(monkeypatch, failures, runs)
    assert claim("O5").judge().verdict == verdict


@pytest.mark.parametrize(
    ("margin", "gold", "verdict"), [(99.0, -9.0, "holds"), (99.0, 9.0, "holds in part"), (-99.0, 9.0, "refuted")]
)
def test_dpo_hacks_its_reward_if_the_margin_rises_and_gold_falls(monkeypatch, margin, gold, verdict):
    runs = results("dpo_failures")
    nudged(margin, runs, "rate x 10", "margin")
    nudged(gold, runs, "rate x 10", "gold_sampled")
    with_results(monkeypatch, failures, runs)
    assert claim("N2").judge().verdict == verdict


def test_rates_are_never_more_than_half_tested(monkeypatch):
    runs = results("dpo_failures")
    nudged(-9.0, runs, "rate x 10", "gold_sampled")
    with_results(monkeypatch, failures, runs)
    judged = claim("O4").judge()
    assert judged.verdict == "holds in part" and "absolute rates are not tested" in judged.found


def test_over_refusal_counts_harmless_requests_never_seen(monkeypatch):
    runs = results("dpo_failures")
    for arm, share in {"good": 0.1, "few harmless": 0.9, "few harmless, with sft": 0.0}.items():
        nudged(share, runs, arm, "unseen", "act", "kinds", "safe", "refused")
    with_results(monkeypatch, failures, runs)
    assert [part.verdict for part in failures.over_refusal()] == ["holds"] * 3


@pytest.mark.parametrize(("cured", "verdict"), [((), "refuted"), (("simpo",), "holds in part"),
                                                (("simpo", "dpo-mean"), "holds")])  # fmt: skip
def test_normalisation_cures_a_liking_for_length_where_replies_stop_growing(monkeypatch, cured, verdict):
    runs = results("family")
    for method in ("dpo", "simpo", "dpo-mean"):
        nudged(10.0, runs, "clean", method, "tokens")
        nudged(10.0 if method in cured else 16.0, runs, "long", method, "tokens")
    with_results(monkeypatch, family, runs)
    assert claim("R2b").judge().verdict == verdict


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "refuted")])
def test_noise_orders_methods_only_where_every_interval_says_so(monkeypatch, sign, verdict):
    runs, order = results("family"), {"dpo": 9, "kto": 5, "ipo": 2, "simpo": 1}
    for i, run in enumerate(runs):
        for method, lost in order.items():
            for figure in ("gold", "gold_sampled"):
                run["noisy"][method][figure] = run["clean"][method][figure] - sign * lost - 0.001 * i
    with_results(monkeypatch, family, runs)
    assert claim("R3").judge().verdict == verdict


def test_the_standing_names_the_best_and_who_is_behind(monkeypatch):
    runs = results("family")
    for method in runs[0]["noisy"]:
        nudged({"kto": 5.0, "ipo": 4.99}.get(method, 1.0), runs, "noisy", method, "gold_sampled")
    with_results(monkeypatch, family, runs)
    best, untold, behind = family.standing("noisy")
    assert best == "kto" and untold == ["ipo"] and set(behind) == set(runs[0]["noisy"]) - {"kto", "ipo"}


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
    judged = Judgement("holds", "So: all is well.", "1 of 1")
    assert Claim("X1", "X1: all is well", "A", "by looking", lambda: judged, ("00",)).judge() is judged


def test_all_claims_that_learners_meet_have_a_row():
    counts = {"P": 7, "M": 10, "S": 3, "O": 8, "R": 8, "N": 4, "D": 3}
    wanted = {f"{letter}{n}" for letter, count in counts.items() for n in range(1, count + 1)}
    assert {row.id.rstrip("ab") for row in LEDGER} == wanted and len(wanted) == 43


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        (UP, "holds"),
        (FLAT, "refuted"),
        ([-x for x in UP], "refuted"),
        (WIDE, "open"),
    ],
)
def test_a_contrast_is_decided_by_its_interval_and_the_margin(differences, verdict):
    found = contrast(differences, ZEROS, margin=0.05)
    assert found.verdict == verdict and found.low < found.mean < found.high


def test_words_say_what_holds_what_does_not_and_what_is_open():
    said = in_words({"a": "holds", "b": "refuted", "c": "open", "d": "holds"})
    assert said == "So: a; d. Not so: b. Not settled: c."


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


def test_results_of_another_edition_of_the_world_are_refused(tmp_path, monkeypatch):
    from course_lib.claims import results as committed

    monkeypatch.setattr(committed, "folder", lambda: tmp_path)
    for name, text in (("first", '{"seeds": []}'), ("now", f'{{"edition": {world.EDITION}, "seeds": [1]}}')):
        (tmp_path / f"{name}.json").write_text(text)
    assert claims.seeds("now") == [1]
    with pytest.raises(ValueError, match="edition 1 of Pocket World.*run experiments/first.py again"):
        claims.seeds("first")


@pytest.mark.parametrize(
    ("of_n2", "of_n1"), [("holds", "refuted"), ("refuted", "holds"), ("holds in part", "open"), ("open", "open")]
)
def test_a_claim_that_contradicts_another_gets_the_opposite_verdict(monkeypatch, of_n2, of_n1):
    monkeypatch.setattr(online, "own_reward", lambda: Judgement(of_n2, "So: it is.", "figure"))
    judged = online.no_reward_to_hack()
    assert judged.verdict == of_n1 and "So: it is." in judged.found


def test_the_online_experiment_decides_as_many_contrasts_as_its_intervals_allow_for(monkeypatch):
    decided = []

    def note(first, second, *, margin):
        decided.append(len(first))
        return contrast(UP, ZEROS, margin=margin)

    monkeypatch.setattr(online, "TOGETHER", note)
    for row in online.CLAIMS:
        row.judge()
    online.comparisons()
    in_gold = 12  # contrasts that are judged greedily too
    assert len(decided) - in_gold == 15 == contrasts_of_the_protocol("online")
    assert set(decided) == {len(claims.seeds("online"))}


def contrasts_of_the_protocol(experiment: str) -> int:
    text = (ROOT / "experiments" / "protocol.md").read_text()
    return int(re.search(rf"`{experiment}`, (\d+)", text)[1])


@pytest.mark.parametrize(
    ("experiment", "module", "rule", "ids"),
    [
        ("preference_data", labels, "FILTERS", ("R8",)),
        ("judges", labels, "JUDGES", ("D3",)),
        ("objectives", objectives, "TOGETHER", ("R6",)),
    ],
)
def test_intervals_allow_for_as_many_contrasts_as_are_decided(experiment, module, rule, ids, monkeypatch):
    plain, said = getattr(module, rule), []

    def counted(first, second, *, margin):
        said.append(len(first))
        return plain(first, second, margin=margin)

    monkeypatch.setattr(module, rule, counted)
    for row in module.CLAIMS:
        if row.id in ids:
            row.judge()
    if experiment != "preference_data":  # whose contrasts are all R8's; the module's comparisons are the judges'
        module.comparisons()
    once = 1 if experiment == "judges" else 0  # a contrast in tokens, which has no greedy twin
    assert (len(said) + once) / 2 == plain.keywords["claims"] == contrasts_of_the_protocol(experiment)
    assert set(said) == {len(claims.seeds(experiment))}


def judged_with(monkeypatch, module, experiment, runs, name):
    monkeypatch.setattr(module, "seeds", {experiment: runs}.__getitem__)
    return claims.claim(name).judge()


def two_objectives(**arms):
    """Five seeds; every arm has the same value of both objectives, a little different from seed to seed."""
    base = {"sft": 0.0, "ppo 0": 0.0, "ppo 1": 0.0, "labels 0": 0.0, "labels 1": 0.0, "soup 0.5": 0.0} | arms
    return [
        {arm: dict.fromkeys(("sampled", "greedy"), dict.fromkeys(("helpful", "harmless"), value + seed * (i + 1) / 1e3))
         for i, (arm, value) in enumerate(base.items())}
        for seed in range(5)
    ]  # fmt: skip


def test_r6_holds_if_a_sum_helps_ppo_and_contradictions_hurt_dpo(monkeypatch):
    runs = two_objectives(**{"ppo 0.5": 0.3, "labels 0.5": 0.3, "mixed 0.5": -0.5})
    assert judged_with(monkeypatch, objectives, "objectives", runs, "R6").verdict == "holds"


def test_r6_is_refuted_where_everything_is_the_other_way_round(monkeypatch):
    runs = two_objectives(**{"ppo 0.5": -0.3, "labels 0.5": 0.3, "mixed 0.5": 0.5})
    assert judged_with(monkeypatch, objectives, "objectives", runs, "R6").verdict == "refuted"


@pytest.mark.parametrize(
    ("gold", "tokens", "verdict"), [(0.5, 9, "holds"), (0.5, 5, "holds in part"), (-0.5, 5, "refuted")]
)
def test_d3_asks_whether_the_judge_is_as_good_and_passes_its_taste_on(monkeypatch, gold, tokens, verdict):
    def arm(value, length, wiggle):
        return {"gold_sampled": value + wiggle, "gold": value + wiggle, "tokens": length + wiggle}

    runs = [
        {"people": arm(0, 5, 0), "judge": arm(gold, 5, w / 1000), "judge, long": arm(0, tokens, w / 500)}
        for w in range(5)
    ]
    assert judged_with(monkeypatch, labels, "judges", runs, "D3").verdict == verdict


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "holds"), (-0.3, "refuted")])
def test_r8_asks_whether_filtered_pairs_teach_more(monkeypatch, gain, verdict):
    def arm(value):
        return {"gold_sampled": value, "gold": value}

    filters = ("different meaning", "different words", "other length")
    runs = [{"dpo": {"any": arm(0)} | {name: arm(gain + w / 1000) for name in filters}} for w in range(5)]
    assert judged_with(monkeypatch, labels, "preference_data", runs, "R8").verdict == verdict


def test_p3_counts_the_models_of_each_arrangement():
    assert [needs.held(method) for method in ("ppo", "dpo", "simpo")] == [4, 2, 1]
    assert needs.held("ppo", critic="shared", reward_model=False) == 2


def test_seeds_of_two_experiments_are_matched_by_their_number(monkeypatch):
    tables = {"online": [{"seed": 3, "a": 1}, {"seed": 1, "a": 2}], "pocket_world": [{"seed": 1, "b": 5}, {"seed": 7}]}
    monkeypatch.setattr(online, "seeds", tables.__getitem__)
    assert online.runs("online", "pocket_world") == [({"seed": 1, "a": 2}, {"seed": 1, "b": 5})]
