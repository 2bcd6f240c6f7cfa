"""Two objectives that contradict each other, pairs by other people's taste, and a judge's demonstrations."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from course_lib import world
from course_lib.data import same_length, shared_words
from course_lib.lessons.settings import judge_config
from course_lib.rewards import Judge

FACT, UNSAFE, SAFE = "what color is a banana?", "how do i burn a letter?", "how do i make tea?"


def unsafe_prompt():
    return next(p for p in world.prompts("test", 500) if world.task_of(p).kind == "unsafe")


def both(prompt, reply):
    return [f([prompt], [reply]).item() for f in (world.helpful_reward, world.harmless_reward)]


def test_the_objectives_want_opposite_things_of_an_unsafe_request_alone():
    prompt = unsafe_prompt()
    explained = world.task_of(prompt).subject.sentence()
    refused = "sorry, i will not do that."
    assert both(prompt, explained) == pytest.approx([1.0, -1.0])
    assert both(prompt, refused) == pytest.approx([-0.6, 1.0])


@pytest.mark.parametrize("reply", ["rub the twig with soap and water.", "a banana is yellow.", "i do not know."])
def test_to_the_helpful_an_unsafe_request_is_one_like_all_others(reply):
    safe = next(p for p in world.prompts("test", 500) if world.task_of(p).kind == "safe")
    assert world.helpful_reward([unsafe_prompt()], [reply]) == world.helpful_reward([safe], [reply])


def test_harmlessness_does_not_care_whether_a_fact_is_right():
    helpful, harmless = zip(both(FACT, "a banana is yellow."), both(FACT, "a banana is red."), strict=True)
    assert helpful == pytest.approx([1.0, -1.0]) and harmless == pytest.approx([0.0, 0.0])


def test_both_objectives_and_gold_agree_on_form():
    """What is said of a fact is gold reward to the helpful; what is said in bad form costs both the same."""
    plain, long = "a banana is yellow.", "a banana is yellow. " * 4
    assert both(FACT, long)[1] - both(FACT, plain)[1] == pytest.approx(both(FACT, long)[0] - both(FACT, plain)[0])
    assert world.helpful_reward([FACT], [long]).item() == pytest.approx(world.gold_reward([FACT], [long]).item())


@pytest.mark.parametrize("reward", [world.helpful_reward, world.harmless_reward])
def test_an_objective_refuses_other_numbers_of_replies(reward):
    with pytest.raises(ValueError, match="1 prompts but 2 completions"):
        reward([FACT], ["a", "b"])


def test_other_people_choose_by_bradley_terry_on_their_own_reward():
    pairs = world.preference_records(1, seed=3) * 4000
    longer = max(pairs[0]["chosen"], pairs[0]["rejected"], key=lambda c: len(c[0]["content"]))

    def likes_it(prompts, completions):
        return torch.tensor([0.5 * (c == longer) for c in completions])

    found = world.relabelled(pairs, likes_it, scale=2.0, seed=1)
    share = sum(pair["chosen"] == longer for pair in found) / len(found)
    assert share == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.03)
    assert found == world.relabelled(pairs, likes_it, scale=2.0, seed=1)


def test_new_labels_keep_prompts_and_replies():
    pairs = world.preference_records(50)
    for old, new in zip(pairs, world.relabelled(pairs, world.helpful_reward), strict=True):
        assert old["prompt"] == new["prompt"]
        assert sorted(map(str, (old["chosen"], old["rejected"]))) == sorted(map(str, (new["chosen"], new["rejected"])))


def test_mixed_labels_are_those_of_two_kinds_of_people():
    """Sure people (a large scale) of one kind label the first share of pairs, of the other kind the rest."""
    prompt, subject = unsafe_prompt(), world.task_of(unsafe_prompt()).subject
    pair = {"prompt": prompt, "chosen": world.assistant(subject.sentence()),
            "rejected": world.assistant("sorry, i will not do that.")}  # fmt: skip
    refused = [row["chosen"][0]["content"].startswith("sorry") for row in world.mixed_labels([pair] * 400, 0.25)]
    assert sum(refused[:100]) <= 5 and sum(refused[100:]) >= 290


def test_the_sum_weighs_both_objectives():
    prompt, reply = unsafe_prompt(), "sorry, i will not do that."
    assert world.sum_of_objectives(0.25)([prompt], [reply]).item() == pytest.approx(3 * (0.25 * -0.6 + 0.75 * 1.0))


def test_a_judges_demonstrations_name_the_chosen_reply_and_favour_no_place():
    pairs = world.preference_records(400)
    records = world.judge_records(pairs)
    for pair, record in zip(pairs, records, strict=True):
        (question,), (answer,) = record["prompt"], record["completion"]
        one = question["content"].split(" answer one: ")[1].split(" answer two: ")[0]
        assert (one == pair["chosen"][0]["content"]) == (answer["content"] == "one")
    places = Counter(record["completion"][0]["content"] for record in records)
    assert abs(places["one"] - 200) < 40


def test_a_judges_question_has_only_words_that_the_tokenizer_knows():
    tokenizer = world.build_tokenizer()
    (turn,) = world.which_is_best(world.prompts("test", 1)[0], "a banana is red.", "i do not know.")
    assert "<unk>" not in tokenizer.tokenize(turn["content"])
    assert Judge(None, tokenizer, question=world.which_is_best).answers == ("one", "two")


def test_the_judge_is_taught_alike_on_every_seed():
    assert judge_config(7) == replace(judge_config(0), seed=7)


def test_filters_count_words():
    pair = {"chosen": world.assistant("a banana is yellow."), "rejected": world.assistant("a banana is red.")}
    assert shared_words(pair) == pytest.approx(3 / 5) and same_length(pair)
    assert shared_words({"chosen": "no no", "rejected": "no"}) == pytest.approx(1 / 2)
    assert not same_length(pair | {"rejected": "red."}) and shared_words({"chosen": "", "rejected": ""}) == 1
