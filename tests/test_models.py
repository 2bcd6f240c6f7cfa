"""Loading: shipped, local, LoRA, QLoRA; references; what a bad name gets."""

import math

import pytest
import torch
from conftest import tiny_llama

from course_lib import PreferenceConfig, PreferenceTrainer, load_policy, load_reward_model, reference_of, sequence_logps
from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.models import save_pretrained
from course_lib.world import preference_records, user


@pytest.fixture
def batch(tokenizer):
    pairs = [tuple(encode_row(r, tokenizer)) for r in preference_records(4)]
    return collate_pairs(pairs, tokenizer.pad_token_id)


@pytest.fixture
def folder(tmp_path, tokenizer):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    return str(tmp_path)


def test_fresh_lora_changes_nothing_and_trains_little(folder, batch):
    full, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    torch.testing.assert_close(sequence_logps(lora, **batch), sequence_logps(full, **batch), atol=0, rtol=0)
    trained = [name for name, p in lora.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_nf4_policy_scores_nearly_like_the_full_one_and_trains_adapters(folder, batch):
    pytest.importorskip("bitsandbytes")
    full, _ = load_policy(folder, device="cpu")
    quantised, _ = load_policy(folder, lora_rank=4, quantization="nf4", device="cpu")
    kinds = {type(m).__name__ for m in quantised.modules()}
    assert "Linear4bit" in kinds
    ours, exact = sequence_logps(quantised, **batch), sequence_logps(full, **batch)
    assert not torch.equal(ours, exact)
    torch.testing.assert_close(ours, exact, atol=5, rtol=0.1)
    ours.sum().backward()
    assert all(p.grad is not None for n, p in quantised.named_parameters() if "lora_A" in n)


def test_a_quantised_policy_trains_its_adapters_against_itself(folder, tokenizer):
    pytest.importorskip("bitsandbytes")
    policy, _ = load_policy(folder, lora_rank=4, quantization="nf4", device="cpu")
    config = PreferenceConfig(batch_size=4, learning_rate=1e-2, epochs=4, progress=False, log_every=1)
    trainer = PreferenceTrainer(policy, tokenizer, preference_records(8), config)
    history = trainer.train()
    assert trainer.reference.kind == "adapter-off"
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] - 0.02


def test_reference_kinds(folder):
    full, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    assert reference_of(full).kind == "precomputed" and reference_of(lora).kind == "adapter-off"
    copied = reference_of(full, kind="copy").frozen
    assert copied is not full and not any(p.requires_grad for p in copied.parameters())
    with pytest.raises(ValueError, match="precomputed"):
        reference_of(full, kind="adapter-off")


def test_adapters_off_score_exactly_as_the_base_does_after_training_them(folder, batch):
    base, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    reference = reference_of(lora)
    with torch.no_grad():
        for name, p in lora.named_parameters():
            if "lora_" in name:
                p.normal_()
    with reference.scoring(lora) as scorer:
        off = sequence_logps(scorer, **batch)
    assert torch.equal(off, sequence_logps(base, **batch))
    assert not torch.equal(sequence_logps(lora, **batch), off)


def test_tokenizers_without_pad_or_template_are_completed(tmp_path, bpe_tokenizer):
    save_pretrained(tiny_llama(len(bpe_tokenizer)), bpe_tokenizer, tmp_path)
    _, tokenizer = load_policy(str(tmp_path), device="cpu")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.apply_chat_template(user("hi"), tokenize=False, add_generation_prompt=True).endswith("Assistant:")


def test_a_policy_becomes_a_reward_model_with_one_output(folder):
    model, _ = load_reward_model(folder, device="cpu")
    assert model.score.out_features == 1


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(OSError, match="(?s)pocket-world-sft.*Without internet"):
        load_policy("someone/no-such-model")


@pytest.mark.parametrize("options", [{"lora_rank": 0}, {"quantization": "int3"}])
def test_nonsense_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        load_policy("pocket-world", **options)
