"""Reports and probes say of many rows what gold reward and log-probabilities say of each alone."""

import pandas as pd
import pytest
import torch

from course_lib import sample, sequence_logps, world
from course_lib.data import collate_completions, encode_completion
from course_lib.evaluation import (
    by_kind,
    calibration,
    calibration_error,
    cloze_accuracy,
    evaluate_gold,
    gold_report,
    implicit_reward_report,
    mean_parts,
    probe_table,
    reward_report,
)

ASK = "what color is a banana?"


def test_a_report_has_the_parts_of_each_gold_reward_and_their_sum():
    answers = ["a banana is yellow.", "a banana is red.", "i do not know."]
    report = gold_report([ASK] * 3, answers)
    assert list(report.gold) == pytest.approx([1.0, -1.0, -0.6])
    for (_, row), answer in zip(report.iterrows(), answers, strict=True):
        parts = world.gold_parts(ASK, answer)
        assert row[list(parts)].to_dict() == pytest.approx(parts) and row.tokens == world.parse(answer).tokens


def test_a_report_needs_a_completion_for_each_prompt():
    with pytest.raises(ValueError, match="2 prompts but 1 completions"):
        gold_report([ASK, ASK], ["a banana is yellow."])


def test_the_mean_of_each_part_is_that_over_completions():
    one, two = gold_report([ASK], ["i do not know."]), gold_report([ASK], ["a banana is yellow."])
    table = mean_parts({"both": pd.concat([one, two]).assign(text="x"), "two": two})
    assert list(table.index) == ["both", "two"] and set(table.columns) == set(world.gold_parts(ASK, ""))
    assert table.loc["both"].sum() == pytest.approx((1.0 - 0.6) / 2) and table.loc["two"].sum() == pytest.approx(1.0)


def test_a_table_by_kind_counts_what_is_right_and_what_is_refused():
    prompts = ["how do i burn a twig?", "how do i burn a twig?", "how do i burn a letter?", ASK]
    replies = [
        "hold a match under the twig.",
        "sorry, i will not do that.",
        "sorry, i will not do that.",
        "i do not know.",
    ]
    table = by_kind(gold_report(prompts, replies))
    assert list(table.index) == ["fact", "safe", "unsafe"] and list(table.n) == [1, 2, 1]
    assert list(table.refused) == [0, 0.5, 1] and list(table.right) == [0, 0.5, 0]
    assert table.gold["safe"] == pytest.approx((1.0 - 0.6) / 2)


def test_special_tokens_in_a_reply_cost_as_words_that_nobody_can_read():
    plain, odd = gold_report([ASK] * 2, ["a banana is yellow.", "a banana is yellow. <user>"]).gold
    assert odd < plain - 0.4


def test_gold_is_that_of_the_models_own_samples(sft_policy):
    model, tokenizer = sft_policy
    prompts = world.prompts("test", 8)
    for temperature in (0.0, 1.0):
        table = evaluate_gold(model, tokenizer, prompts, temperature=temperature, seed=3)
        assert list(table.text) == sample(model, tokenizer, prompts, temperature=temperature, seed=3)
        assert list(table.gold) == pytest.approx(world.gold_reward(prompts, table.text).tolist())


def logp(model, prompt, completion, tokenizer) -> float:
    batch = collate_completions([encode_completion(prompt, completion, tokenizer)], tokenizer.pad_token_id)
    return sequence_logps(model, **batch).item()


def test_implicit_rewards_are_those_of_each_pair_alone(sft_policy, tiny_model):
    policy, tokenizer = sft_policy
    pairs = world.preference_records(5)
    report = implicit_reward_report(policy, tiny_model, tokenizer, pairs, beta=0.3, batch_size=2)
    for (_, row), pair in zip(report.iterrows(), pairs, strict=True):
        alone = {
            f"{name}_{side}": logp(model, pair["prompt"], pair[side], tokenizer)
            for name, model in (("policy", policy), ("ref", tiny_model))
            for side in ("chosen", "rejected")
        }
        log_ratios = [alone[f"policy_{side}"] - alone[f"ref_{side}"] for side in ("chosen", "rejected")]
        margin = 0.3 * (log_ratios[0] - log_ratios[1])
        assert row.to_dict() == pytest.approx(alone | {"margin": margin}, abs=1e-3)


def test_a_policy_that_is_its_reference_prefers_nothing(tiny_model, tokenizer):
    report = implicit_reward_report(tiny_model, tiny_model, tokenizer, world.preference_records(3))
    assert (report.margin == 0).all()
    with pytest.raises(ValueError, match="no records"):
        implicit_reward_report(tiny_model, tiny_model, tokenizer, [])


def test_dropout_stays_out_of_reports_and_probes(tiny_model, tokenizer):
    tiny_model.config.attention_dropout = 0.5
    for layer in tiny_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    tiny_model.train()
    pairs = world.preference_records(3)
    tables = [implicit_reward_report(tiny_model, tiny_model, tokenizer, pairs) for _ in range(2)]
    assert tables[0].equals(tables[1]) and (tables[0].margin == 0).all() and tiny_model.training


class Knows(torch.nn.Module):
    """A model that always goes on with one word."""

    def __init__(self, token_id: int, size: int):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(token_id), size).float())

    def forward(self, input_ids, **_):
        return type("Output", (), {"logits": self.logits.expand(len(input_ids), 1, -1)})


def test_a_probe_counts_the_statements_that_end_in_the_likeliest_word(tokenizer):
    yellow = sum(fact.value == "yellow" for fact in world.facts.FACTS) / len(world.facts.FACTS)
    eight = sum(pair.value == "8" for pair in world.skills.SUMS) / len(world.skills.SUMS)
    models = {word: Knows(tokenizer.convert_tokens_to_ids(word), len(tokenizer)) for word in ("yellow", "8")}
    table = probe_table(models, tokenizer)
    assert table.loc["yellow"].to_dict() == pytest.approx(
        {"facts": yellow, "sums": 0, "alphabet": 0, "larger": 0, "longer": 0}
    )
    assert table.loc["8", "sums"] == pytest.approx(eight) and yellow > 0 and eight > 0


def test_an_unknown_probe_is_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="facts, sums, alphabet, larger, longer; got 'songs'"):
        cloze_accuracy(tiny_model, tokenizer, "songs")


def scored(differences):
    """A report of pairs with these differences of rewards."""
    pairs = [{"prompt": str(i), "chosen": str(d), "rejected": "0"} for i, d in enumerate(differences)]
    score = lambda prompts, completions: torch.tensor([float(c) for c in completions])  # noqa: E731
    return reward_report(score, pairs, kind=lambda prompt: "even" if int(prompt) % 2 == 0 else "odd")


def test_a_reward_report_says_which_pairs_are_ranked_rightly_and_how_surely():
    report = scored([2.0, -1.0, 0.0])
    assert report.right.tolist() == [True, False, False] and report.kind.tolist() == ["even", "odd", "even"]
    assert report.probability.tolist() == pytest.approx([0.8808, 0.2689, 0.5], abs=1e-4)
    with pytest.raises(ValueError, match="no pairs"):
        scored([])


def test_labels_that_follow_bradley_terry_are_calibrated_and_an_overconfident_reward_is_not():
    generator = torch.Generator().manual_seed(0)
    gaps = 2 * torch.randn(4000, generator=generator)
    wins = torch.rand(4000, generator=generator) < torch.sigmoid(gaps)
    honest = scored(torch.where(wins, gaps, -gaps).tolist())
    boastful = scored((5 * torch.where(wins, gaps, -gaps)).tolist())
    assert calibration_error(honest) < 0.02 < 0.1 < calibration_error(boastful)
    table = calibration(honest, bins=5)
    assert table.n.sum() == 4000 and table.sure.is_monotonic_increasing
    assert calibration(scored([9.0, 8.0])).n.tolist() == [2]


def test_the_reward_report_knows_pocket_worlds_kinds():
    pairs = world.preference_records(20, split="test", seed=1)
    report = reward_report(world.gold_reward, pairs)
    assert set(report.kind) <= {"fact", "larger", "longer", "safe", "unsafe", "sum"} and report.right.mean() > 0.6
