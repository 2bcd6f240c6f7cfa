"""A judge that is asked in words: what it says, whether the order moves it, and what its word is worth."""

import pytest
import torch

from course_lib import world
from course_lib.rewards import Judge, judged_pairs
from course_lib.rewards.judge import better_of_two


@pytest.fixture
def judge(sft, monkeypatch):
    found = Judge(*sft, question=in_world_words)

    def log_odds(prompts, one, two):
        return torch.tensor([float(len(a) - len(b)) + 2 for a, b in zip(one, two, strict=True)])

    monkeypatch.setattr(found, "log_odds", log_odds)
    return found


def in_world_words(prompt, one, two):
    asked = prompt[-1]["content"]
    text = f"question: {asked} answer one: {one} answer two: {two} which answer is best, one or two?"
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def sft():
    from course_lib import load_policy

    return load_policy("pocket-world-sft")


def test_the_log_odds_are_those_of_the_answers_first_tokens(sft):
    model, tokenizer = sft
    prompts = world.prompts("test", 3)
    one, two = ["i think it is red."] * 3, ["sorry, i can not help with that."] * 3
    found = Judge(model, tokenizer, question=in_world_words, batch_size=2).log_odds(prompts, one, two)
    for i, prompt in enumerate(prompts):
        dialogue = in_world_words(prompt, one[i], two[i])
        ids = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        words = [tokenizer.convert_tokens_to_ids(word) for word in ("one", "two")]
        assert found[i].item() == pytest.approx((logits[words[0]] - logits[words[1]]).item(), abs=1e-4)


def test_a_model_whose_output_layer_cannot_be_applied_apart_is_read_alike(sft, monkeypatch):
    asked = (world.prompts("test", 4), ["it is red."] * 4, ["sorry, i will not do that."] * 4)
    judge = Judge(*sft, question=in_world_words)
    apart = judge.log_odds(*asked)
    monkeypatch.setattr("course_lib.rewards.judge.completion_states", lambda *_, **__: None)
    assert torch.allclose(judge.log_odds(*asked), apart, atol=1e-4)


def test_a_place_that_is_favoured_moves_no_comparison_and_is_the_bias(judge):
    odds, bias = judge.compare(["p", "p"], ["long reply", "s"], ["short", "longer"])
    assert odds.tolist() == [5, -5] and bias.tolist() == [2, 2]


def test_ties_are_left_out_of_judged_pairs(judge):
    records = judged_pairs(judge, ["a", "b", "c"], ["xx", "x", "xxxx"], ["yy", "yyy", "y"], tie=2.5)
    assert [(r["prompt"], r["chosen"], r["log_odds"]) for r in records] == [("c", "xxxx", 3.0)]
    assert len(judged_pairs(judge, ["a", "b"], ["xx", "x"], ["yy", "yyy"])) == 1
    with pytest.raises(ValueError, match="tie is at least 0"):
        judged_pairs(judge, [], [], [], tie=-1)


def test_as_a_reward_it_compares_with_the_opponents_replies(judge):
    score = judge.reward([lambda prompts: ["xx"] * len(prompts), lambda prompts: ["xxxx"] * len(prompts)])
    assert score(["p", "q"], ["xxx", "xxxxxx"]).tolist() == [0, 3]
    assert score.latest["place_bias"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="at least one opponent"):
        judge.reward([])


def test_a_judge_refuses_what_it_cannot_read(sft):
    model, tokenizer = sft
    with pytest.raises(ValueError, match="begin with the same token"):
        Judge(model, tokenizer, question=in_world_words, answers=("one", "one thing")).log_odds(
            world.prompts("test", 1), ["a"], ["a"]
        )
    with pytest.raises(ValueError, match="2 prompts, 1 and 2 replies"):
        Judge(model, tokenizer).log_odds(["a", "b"], ["c"], ["d", "e"])


def test_the_plain_question_shows_the_dialogue_and_both_replies():
    (turn,) = better_of_two([{"role": "user", "content": "Why?"}], "So.", "Because.")
    assert all(part in turn["content"] for part in ("Question: Why?", "Answer one: So.", "Answer two: Because."))
