"""A reward model as a reward function: each response gets its own reward, whatever lies beside it."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from course_lib import RewardTrainer, TrainingConfig, load_reward_model, world
from course_lib.data import Encoded, collate_shared_ends
from course_lib.models import pair_rewards, sequence_rewards, why_rewards_not_shared
from course_lib.rewards import learned_reward

PROMPTS, COMPLETIONS = ["d e f g", "a b", "c"], ["l", "h", "i j k"]


def scorer(labels: int = 1, dropout: float = 0.0):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_labels=labels, attention_dropout=dropout, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).eval()


def with_adapters(model):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=2, task_type="SEQ_CLS", target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return adapted.eval()


@pytest.mark.parametrize("model", [scorer(), with_adapters(scorer())], ids=["plain", "adapters"])
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_a_reward_is_the_heads_output_at_the_last_token_of_its_own_text(model, batch_size, letters):
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = torch.tensor([[*letters(f"{prompt} {completion}")["input_ids"], letters.eos_token_id]])
        expected.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.item())
    prompts = [prompt + " " for prompt in PROMPTS]
    rewards = learned_reward(model, letters, batch_size=batch_size)(prompts, COMPLETIONS)
    torch.testing.assert_close(rewards, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_adapters_change_rewards(letters):
    plain, adapted = learned_reward(scorer(), letters), learned_reward(with_adapters(scorer()), letters)
    assert not torch.allclose(plain(PROMPTS, COMPLETIONS), adapted(PROMPTS, COMPLETIONS), atol=1e-3)


def test_dropout_stays_out_of_rewards_and_the_models_mode_as_it_was(letters):
    model = scorer(dropout=0.5).train()
    score = learned_reward(model, letters)
    assert torch.equal(score(PROMPTS, COMPLETIONS), score(PROMPTS, COMPLETIONS)) and model.training


def test_a_tokenizer_without_pad_token_will_do(letters):
    import copy

    bare = copy.deepcopy(letters)
    bare.pad_token = None
    expected = learned_reward(scorer(), letters)(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(learned_reward(scorer(), bare)(PROMPTS, COMPLETIONS), expected)


def test_messages_and_their_texts_get_the_same_reward():
    model, tokenizer = load_reward_model(device="cpu")
    score, pairs = learned_reward(model, tokenizer), world.preference_records(8)
    prompts, chosen = [row["prompt"] for row in pairs], [row["chosen"] for row in pairs]
    texts = [messages[0]["content"] for messages in chosen]
    assert torch.equal(score(prompts, chosen), score(prompts, texts))


def test_nothing_has_no_rewards(letters):
    assert learned_reward(scorer(), letters)([], []).shape == (0,)


def test_what_cannot_be_scored_is_refused(letters):
    with pytest.raises(ValueError, match="2 prompts but 1 completions"):
        learned_reward(scorer(), letters)(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="batch_size is at least 1; got 0"):
        learned_reward(scorer(), letters, batch_size=0)
    with pytest.raises(ValueError, match="one label; this one has 3"):
        learned_reward(scorer(labels=3), letters)
    small = scorer()
    small.resize_token_embeddings(8)
    with pytest.raises(ValueError, match="embedding ends at 7"):
        learned_reward(small, letters)(["a b"], ["z"])


def test_a_language_model_is_no_reward_model(letters):
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(ValueError, match="reward model"):
        learned_reward(AutoModelForCausalLM.from_config(config), letters)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_found_behind_padding_on_either_side(side):
    model, ids = scorer(), torch.tensor([[5, 6, 7]])
    alone = sequence_rewards(model, ids, torch.ones_like(ids))
    blank, ones = torch.zeros(1, 2).long(), torch.ones_like(ids)
    parts = [(blank, ids), (0 * blank, ones)] if side == "left" else [(ids, blank), (ones, 0 * blank)]
    torch.testing.assert_close(sequence_rewards(model, *(torch.cat(part, dim=1) for part in parts)), alone)


def pairs_of_unequal_rows():
    prompt, other = [5, 6, 7, 8], [9, 10]
    return [
        (Encoded(prompt, [11, 12, 13, 2]), Encoded(prompt, [11, 14, 2])),
        (Encoded(other, [15, 2]), Encoded(other, [16, 17, 18, 19, 2])),
        (Encoded(other, [2]), Encoded(other, [20, 2])),
        (Encoded(other, [21, 2]), Encoded(other, [21, 2])),
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model", [scorer(), with_adapters(scorer())], ids=["plain", "adapters"])
def test_rewards_of_pairs_that_share_their_start_are_those_of_each_text_alone(model, attention):
    model.config._attn_implementation = attention
    pairs = pairs_of_unequal_rows()
    together = pair_rewards(model, **collate_shared_ends(pairs, 0))
    for number, side in enumerate([*(c for c, _ in pairs), *(r for _, r in pairs)]):
        ids = torch.tensor([side.prompt_ids + side.completion_ids])
        alone = sequence_rewards(model, ids, torch.ones_like(ids))
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-5, rtol=1e-5)
    model.config._attn_implementation = "sdpa"


def test_a_pair_without_a_common_prompt_is_refused():
    with pytest.raises(ValueError, match="row 0 of the batch needs one prompt"):
        collate_shared_ends([(Encoded([5], [2]), Encoded([6], [2]))], 0)


def test_models_that_cannot_share_say_why_and_train_on_both_texts(tokenizer, caplog, monkeypatch):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, num_labels=1, pad_token_id=0)
    model = GPT2ForSequenceClassification(config)
    assert why_rewards_not_shared(model) == ""
    model.config._attn_implementation = "flash_attention_2"
    assert "takes no mask" in why_rewards_not_shared(model)
    model.config._attn_implementation = "sdpa"
    monkeypatch.setattr("course_lib.models.reward.visible_segments", lambda segments, inner: None)  # no mask at all
    settings = TrainingConfig(batch_size=8, learning_rate=1e-2, progress=False)
    trainer = RewardTrainer(model, tokenizer, world.preference_records(16), settings)
    before = model.score.weight.clone()
    trainer.train()
    assert not trainer.shared and "computing each prompt twice: its attention does not follow" in caplog.text
    assert not torch.equal(model.score.weight, before)


def test_sharing_changes_no_loss(tokenizer, monkeypatch):
    def losses():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                             num_attention_heads=4, num_labels=1, pad_token_id=0)  # fmt: skip
        trainer = RewardTrainer(
            LlamaForSequenceClassification(config), tokenizer, world.preference_records(32),
            TrainingConfig(batch_size=32, epochs=4, learning_rate=1e-3, progress=False, log_every=1),
        )  # fmt: skip
        return [row["loss"] for row in trainer.train().rows], trainer.shared

    shared, did = losses()
    monkeypatch.setattr("course_lib.trainers.reward.why_pairs_not_shared", lambda *args, **options: "told not to")
    apart, did_not = losses()
    assert did and not did_not and shared == pytest.approx(apart, rel=1e-4)
