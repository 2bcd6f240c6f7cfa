"""TRL 1.16 as an independent oracle: DPO's value and gradient on a real model, through both trainers' own code."""

import copy

import pytest
import torch
from conftest import tiny_llama
from datasets import Dataset

from course_lib import PreferenceTrainer, dpo_loss, sequence_logps
from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.world import preference_records

trl = pytest.importorskip("trl")


@pytest.fixture(scope="module")
def both(tmp_path_factory, tokenizer):
    """The same batch of pairs and the same two models, seen by TRL's trainer and by this library."""
    policy, reference = tiny_llama(len(tokenizer), 1), tiny_llama(len(tokenizer), 2)
    records = preference_records(6, seed=3)
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=trl.DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")), beta=0.2, per_device_train_batch_size=6,
            report_to=[], use_cpu=True, bf16=False, activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(records),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.model.eval()
    batch = next(iter(torch.utils.data.DataLoader(
        trainer.train_dataset, batch_size=6, collate_fn=trainer.data_collator
    )))  # fmt: skip
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    return policy, reference, records, theirs.detach(), trainer.model


def test_dpo_loss_value_and_gradient_equal_trl(both, tokenizer):
    policy, reference, records, theirs, their_model = both
    batch = collate_pairs([tuple(encode_row(r, tokenizer)) for r in records], tokenizer.pad_token_id)
    with torch.no_grad():
        ref = sequence_logps(reference, **batch).chunk(2)
    ours = dpo_loss(*sequence_logps(policy, **batch).chunk(2), *ref, beta=0.2)
    ours.backward()
    torch.testing.assert_close(ours.detach(), theirs, atol=1e-5, rtol=1e-5)
    for (name, mine), (_, other) in zip(policy.named_parameters(), their_model.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_trl_sees_the_same_tokens(both, tokenizer):
    _, _, records, _, _ = both
    for record in records:
        for side, encoded in zip(("chosen", "rejected"), encode_row(record, tokenizer), strict=True):
            whole = tokenizer.apply_chat_template(record["prompt"] + record[side], return_dict=False)
            assert [*encoded.prompt_ids, *encoded.completion_ids] == whole


def test_reference_model_can_be_any_model(both, tokenizer):
    policy, reference, records, theirs, _ = both
    trainer = PreferenceTrainer(copy.deepcopy(policy), tokenizer, records, reference=copy.deepcopy(reference))
    trainer.config.beta, trainer.config.batch_size, trainer.config.progress = 0.2, 6, False
    assert trainer.train().rows[0]["loss"] == pytest.approx(theirs.item(), abs=1e-5)
