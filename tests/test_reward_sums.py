"""Rewards made of others: ensembles, and weighted sums with a price for words."""

import pytest
import torch

from course_lib.rewards import disagreement, ensemble_reward, weighted_reward

PROMPTS, REPLIES = ["a", "b"], ["one two", [{"role": "assistant", "content": "three"}]]


def says(*values):
    return lambda prompts, completions: torch.tensor(values)


MEMBERS = [says(1.0, 4.0), says(3.0, 4.0)]


@pytest.mark.parametrize(
    ("combine", "expected"), [("mean", [2.0, 4.0]), ("minimum", [1.0, 4.0]), ("cautious", [2 - 2**0.5, 4.0])]
)
def test_an_ensemble_by_hand(combine, expected):
    scores = ensemble_reward(MEMBERS, combine=combine)(PROMPTS, REPLIES)
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_members_that_agree_do_not_disagree():
    torch.testing.assert_close(disagreement(MEMBERS, PROMPTS, REPLIES), torch.tensor([2**0.5, 0.0]))


def test_a_weighted_sum_by_hand_keeps_its_parts():
    reward = weighted_reward({"help": (2.0, MEMBERS[0]), "harm": (-1.0, MEMBERS[1])}, per_word=0.5)
    torch.testing.assert_close(reward(PROMPTS, REPLIES), torch.tensor([2 - 3 - 1.0, 8 - 4 - 0.5]))
    assert reward.latest["help"].tolist() == [1.0, 4.0] and reward.latest["words"].tolist() == [2.0, 1.0]


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="two members"):
        ensemble_reward(MEMBERS[:1])
    with pytest.raises(ValueError, match="combine is"):
        ensemble_reward(MEMBERS, combine="median")
    with pytest.raises(ValueError, match="caution"):
        ensemble_reward(MEMBERS, caution=-1)
    with pytest.raises(ValueError, match="no rewards"):
        weighted_reward({})
    with pytest.raises(ValueError, match="per_word"):
        weighted_reward({"a": (1.0, MEMBERS[0])}, per_word=-1)
