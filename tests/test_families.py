"""Scores and sampled tokens of every family of models against the plainest computation there is."""

import pytest
import torch
from families import KNOWN, OWN, model_of

from course_lib import completion_logps, sample
from course_lib.data import Encoded, collate_completions

pytestmark = pytest.mark.slow
ROWS = [Encoded([7, 8, 9], [10, 11, 2]), Encoded([3], [4, 2]), Encoded([5, 6, 7, 8, 13], [9, 9, 12, 9, 2])]
OFF_BY_A_CACHE = {"minimax"}  # their own generate differs from one pass over the same text; `sample` follows the pass


def test_at_least_forty_families_are_known_here():
    assert len(KNOWN) >= 40, f"not in this version of transformers: {sorted(set(OWN) - set(KNOWN))}"


@pytest.fixture(scope="module", params=sorted(OWN))
def model(request):
    if request.param not in KNOWN:
        pytest.skip(f"this version of transformers has no {request.param}")
    return model_of(request.param)


@torch.no_grad()
def plain_logps(model, row: Encoded) -> torch.Tensor:
    """Of one completion: one sequence, no padding, no mask, no tricks."""
    ids = torch.tensor([*row.prompt_ids, *row.completion_ids])
    table, start = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1), len(row.prompt_ids)
    return table[start - 1 : -1].gather(1, ids[start:, None]).squeeze(1)


@torch.no_grad()
def test_scores_are_those_of_a_plain_pass_alone_and_padded_on_both_sides(model):
    for rows in (ROWS, *([row] for row in ROWS)):
        logps, mask = completion_logps(model, **collate_completions(rows, pad_token_id=0))
        torch.testing.assert_close(logps[mask], torch.cat([plain_logps(model, r) for r in rows]), atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_greedy_samples_are_the_tokens_that_the_model_finds_most_likely(model, letters):
    prompts = ["c d e", "f", "g h i j k l m"]
    for prompt, text in zip(prompts, sample(model, letters, prompts, temperature=0, max_new_tokens=6), strict=True):
        before, new = letters(prompt)["input_ids"], []
        while len(new) < 6 and new[-1:] != [letters.eos_token_id]:
            logits = model(input_ids=torch.tensor([before + new]), use_cache=False).logits
            new.append(logits[0, -1].argmax().item())
        assert text == letters.decode(new, skip_special_tokens=True)


@torch.no_grad()
def test_greedy_samples_are_those_of_the_models_own_generate(model, letters):
    if model.config.model_type in OFF_BY_A_CACHE:
        pytest.skip("its own generate does not predict what its forward pass does")
    for prompt in ("c d e", "g h i j k l m"):
        ids = letters(prompt, return_tensors="pt")["input_ids"]
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        theirs = letters.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
        assert sample(model, letters, [prompt, "f"], temperature=0, max_new_tokens=6)[0] == theirs
