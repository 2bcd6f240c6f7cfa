"""PPO, RLOO and GRPO: what they find where the optimum is known, and what they hold themselves to."""

import copy
import dataclasses
import math

import pytest
import torch
from conftest import tiny_llama
from test_trainers import QUIET, weights, with_lora
from transformers import LlamaForSequenceClassification

from course_lib import world
from course_lib.data import RecordError
from course_lib.losses import generalized_advantage_estimate, kl_shaped_rewards, whiten
from course_lib.models import Critic, ValueHead, critic_of, load_policy, value_head_of
from course_lib.rewards import ensemble_reward, learned_reward, weighted_reward
from course_lib.rollouts import merged_adapters, stop_ids
from course_lib.trainers import (
    GroupConfig,
    GroupTrainer,
    OnlineConfig,
    OnlinePreferenceConfig,
    OnlinePreferenceTrainer,
    OnlineTrainer,
    Part,
    PPOConfig,
    PPOTrainer,
    Samples,
    TrainingError,
)
from course_lib.trainers.rollout_batches import RolloutBatches
from course_lib.trainers.scoring import RunningScale, warn_of_negative_kl

PROMPTS = [{"prompt": prompt} for prompt in world.prompts("train", 12)]
SMALL = {"max_new_tokens": 5, "learning_rate": 1e-3, "prompts_per_rollout": 6, "log_every": 1}


def length_of(prompts, completions):
    """A reward that anything can learn: few words."""
    return torch.tensor([-float(len(c[0]["content"].split())) for c in completions])


def make(kind, tokenizer, reward=length_of, model=None, records=None, **options):
    policy = model or tiny_llama(len(tokenizer))
    quiet = {k: v for k, v in QUIET.items() if k != "batch_size"}
    if kind == "pairs":
        config = OnlinePreferenceConfig(**quiet | SMALL | {"completions": 3, "batch_size": 3} | options)
        return OnlinePreferenceTrainer(policy, tokenizer, records or PROMPTS, config, reward=reward)
    if kind == "ppo":
        options.pop("scale_by_std", None)
        config = PPOConfig(**quiet | SMALL | {"batch_size": 3} | options)
        return PPOTrainer(policy, tokenizer, records or PROMPTS, config, reward=reward)
    config = GroupConfig(**quiet | SMALL | {"loss": kind, "completions": 3, "batch_size": 9} | options)
    return GroupTrainer(policy, tokenizer, records or PROMPTS, config, reward=reward)


@pytest.mark.parametrize("kind", ["ppo", "rloo", "grpo"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_ratio_is_one_before_the_first_update(kind, temperature, tokenizer):
    model = tiny_llama(len(tokenizer))
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    trainer = make(kind, tokenizer, model=model, temperature=temperature)
    first = trainer.train().rows[0]
    assert first["val/ratio"] == pytest.approx(1, abs=1e-4) and first["val/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert first["objective/kl"] == pytest.approx(0, abs=1e-3) and first["policy/clipfrac_avg"] == 0


def early(prompts, completions):
    """The share of words that begin before the letter n."""
    words = [c[0]["content"].split() or ["z"] for c in completions]
    return torch.tensor([sum(word < "n" for word in reply) / len(reply) for reply in words])


@pytest.mark.parametrize("kind", ["ppo", "rloo", "grpo", "pairs"])
def test_a_run_learns_what_is_rewarded(kind, tokenizer):
    price = 0.5 if kind == "pairs" else 0.0  # which is the loss's beta there
    options = {"epochs": 15, "update_epochs": 2, "kl_coefficient": price, "learning_rate": 1e-2, "batch_size": 6}
    options |= {"completions": 6} if kind == "pairs" else {}
    rows = make(kind, tokenizer, reward=early, **options).train().rows
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-4:]) / 4 > sum(scores[:4]) / 4 + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "rloo"])  # GRPO's k3 in the loss has another optimum
def test_the_known_optimum_of_a_bandit_is_found(kind, tokenizer):
    """One token, two arms (words before the letter n, and the others): pi* gives an arm q e^(r/beta) / Z."""
    records, model, beta = PROMPTS[:1] * 64, tiny_llama(len(tokenizer)), 0.7
    ids = torch.tensor([tokenizer.apply_chat_template(records[0]["prompt"], add_generation_prompt=True)["input_ids"]])
    words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=True)
    arm = early(None, [[{"content": word}] for word in words]) == 1

    def share():
        with torch.no_grad():
            return model(ids).logits[0, -1].softmax(-1)[arm].sum().item()

    before = share()
    best = before * math.exp(1 / beta) / (before * math.exp(1 / beta) + 1 - before)
    trainer = make(kind, tokenizer, reward=early, model=model, records=records, epochs=120, max_new_tokens=1,
                   prompts_per_rollout=64, batch_size=64 if kind == "ppo" else 192, kl_coefficient=beta,
                   learning_rate=4e-3, schedule="linear", scale_by_std=False)  # fmt: skip
    trainer.train()
    assert before < 0.7 and share() == pytest.approx(best, abs=0.06)


def vowels(prompts, completions):
    """Two decisions must go together: the first letter of the reply comes before n, and the last one is a vowel."""
    texts = [reply[0]["content"] for reply in completions]
    return torch.tensor([float(bool(t) and t[0] < "n" and t[-1] in "aeiou") for t in texts])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "rloo"])
def test_the_known_optimum_of_a_chain_of_two_tokens_is_found(kind, tokenizer):
    """pi* gives a rewarded pair of tokens q e^(r/beta) / Z; the first token earns nothing but by the second."""
    records, model, beta = PROMPTS[:1] * 64, tiny_llama(len(tokenizer)), 0.7
    ids = tokenizer.apply_chat_template(records[0]["prompt"], add_generation_prompt=True)["input_ids"]
    said = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=True)
    ends = stop_ids(model, tokenizer)
    pays = torch.zeros(len(said), len(said), dtype=torch.bool)
    for a, first in enumerate(said):
        if a not in ends:  # a reply that ends at once is empty
            whole = [first + ("" if b in ends else second) for b, second in enumerate(said)]
            pays[a] = vowels(None, [[{"content": text}] for text in whole]).bool()

    def share():
        with torch.no_grad():
            first = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
            second = model(torch.tensor([[*ids, a] for a in range(len(said))])).logits[:, -1].softmax(-1)
        return (first[:, None] * second * pays).sum().item()

    before = share()
    best = before * math.exp(1 / beta) / (before * math.exp(1 / beta) + 1 - before)
    trainer = make(kind, tokenizer, reward=vowels, model=model, records=records, epochs=160, max_new_tokens=2,
                   prompts_per_rollout=64, batch_size=64 if kind == "ppo" else 192, kl_coefficient=beta,
                   learning_rate=4e-3, schedule="linear", scale_by_std=False)  # fmt: skip
    trainer.train()
    assert 0.02 < before < 0.5 and best > before + 0.05 and share() == pytest.approx(best, abs=0.06)


def test_advantages_are_those_of_a_loop_over_each_row_alone(tokenizer):
    trainer = make("ppo", tokenizer, gamma=0.9, lam=0.8, whiten_advantages=False, kl_coefficient=0.3)
    batch = trainer.collect(0, [0, 1, 2])
    for i, length in enumerate(batch["completion_mask"].sum(1).tolist()):
        mask = batch["completion_mask"][i]
        logps, ref, values = (batch[name][i][mask] for name in ("old_logps", "ref_logps", "old_values"))
        rewards = -0.3 * (logps - ref)
        rewards[-1] += batch["scores"][i]
        following = torch.cat([values[1:], torch.zeros(1)])
        deltas = rewards + 0.9 * following - values
        alone = [sum(0.72 ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]
        torch.testing.assert_close(batch["advantages"][i][mask], torch.stack(alone))
        assert not batch["advantages"][i][~mask].any()


def test_the_score_sits_on_the_last_token_and_shaped_rewards_sum_to_score_less_kl(tokenizer):
    batch = make("ppo", tokenizer).collect(0, [0, 1, 2, 3])
    shaped = kl_shaped_rewards(batch["scores"], batch["old_logps"], batch["ref_logps"], batch["completion_mask"],
                               kl_coefficient=0.2)  # fmt: skip
    torch.testing.assert_close(shaped.sum(1), batch["scores"] - 0.2 * batch["kl"], atol=1e-5, rtol=1e-5)
    free = kl_shaped_rewards(batch["scores"], batch["old_logps"], batch["ref_logps"], batch["completion_mask"],
                             kl_coefficient=0.0)  # fmt: skip
    last = batch["completion_mask"].float().cumsum(1).argmax(1)
    assert torch.equal(free.abs().argmax(1), last)


def test_advantages_are_whitened_over_the_whole_rollout(tokenizer):
    batch = make("ppo", tokenizer).collect(0, list(range(6)))
    inside = batch["advantages"][batch["completion_mask"]]
    assert inside.mean().item() == pytest.approx(0, abs=1e-5) and inside.var().item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("kind", ["ppo", "rloo", "grpo"])
def test_micro_batches_change_no_gradient(kind, tokenizer):
    class Gradients(Part):
        def before_update(self, run):
            self.found = torch.cat([p.grad.flatten() for p in run.parameters()])
            raise KeyboardInterrupt

    found = []
    for accumulation in (1, 3):
        part = Gradients()
        with pytest.raises(KeyboardInterrupt):
            make(kind, tokenizer, reward=early, accumulation=accumulation).train(parts=[part])
        found.append(part.found)
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ppo", "rloo", "pairs"])
def test_a_run_resumes_in_the_middle_of_a_rollout(kind, tokenizer, tmp_path):
    class Die(Part):
        def before_update(self, run):
            if run.step == 5:
                raise KeyboardInterrupt

    options = {"epochs": 4, "update_epochs": 2, "checkpoint_every": 1}
    if kind == "ppo":
        options |= {"epochs": 2, "target_kl": 1.0, "scale_scores": True}
    whole = make(kind, tokenizer, **options)
    history = whole.train()
    with pytest.raises(KeyboardInterrupt):
        make(kind, tokenizer, checkpoint_folder=tmp_path, **options).train(parts=[Die()])
    resumed = make(kind, tokenizer, checkpoint_folder=tmp_path, **options)
    again = resumed.train(resume=True)
    assert torch.equal(weights(resumed.policy), weights(whole.policy)) and again.rows == history.rows
    assert resumed.kl_coefficient == whole.kl_coefficient


def test_a_group_of_equal_rewards_has_no_advantage(tokenizer):
    for kind in ("rloo", "grpo"):
        trainer = make(kind, tokenizer, reward=lambda p, c: torch.full((len(p),), 0.35), kl_coefficient=0.0)
        batch = trainer.collect(0, [0, 1])
        assert not batch["advantages"].any() and trainer.of_rollout["groups/all_equal"] == 1


def test_rloo_advantages_of_a_group_sum_to_nothing_with_the_kl_in_the_reward(tokenizer):
    trainer = make("rloo", tokenizer, kl_coefficient=0.4)
    batch = trainer.collect(0, [0, 1, 2])
    groups = batch["advantages"].view(3, 3)
    torch.testing.assert_close(groups.sum(1), torch.zeros(3), atol=1e-5, rtol=0)
    rewards = (batch["scores"] - 0.4 * batch["kl"]).view(3, 3)
    torch.testing.assert_close(groups[:, 0], rewards[:, 0] - rewards[:, 1:].mean(1))


@pytest.mark.parametrize(("normalise", "weight"), [("completion", "own"), ("token", "all"), ("constant", "fixed")])
def test_each_normalisation_weighs_tokens_as_its_paper_says(normalise, weight, tokenizer):
    trainer = make("grpo", tokenizer, normalise=normalise, kl_coefficient=0.0)
    batch = trainer.collect(0, [0, 1])
    loss, _ = trainer.loss(trainer.policy, batch)
    mean = loss.item() / trainer.terms(batch)
    lengths, advantages = batch["completion_mask"].sum(1).float(), batch["advantages"]
    per_token = {"own": 1 / lengths / len(lengths), "all": torch.full_like(lengths, 1 / lengths.sum()),
                 "fixed": torch.full_like(lengths, 1 / 5 / len(lengths))}[weight]  # fmt: skip
    assert mean == pytest.approx(-(advantages * lengths * per_token).sum().item(), abs=1e-5)


def test_the_price_of_distance_is_steered_to_its_target(tokenizer):
    trainer = make("ppo", tokenizer, target_kl=1.0, kl_horizon=100, kl_coefficient=0.1)
    trainer._steer(torch.full((10,), 9.0))
    assert trainer.kl_coefficient == pytest.approx(0.1 * 1.02)
    trainer._steer(torch.full((10,), 0.9))
    assert trainer.kl_coefficient == pytest.approx(0.1 * 1.02 * 0.99)


def test_scores_are_scaled_over_all_rollouts_so_far():
    scale = RunningScale()
    rollouts = [torch.tensor([1.0, 5.0, 3.0]), torch.tensor([40.0, 2.0])]
    first, second = map(scale, rollouts)
    everything = torch.cat(rollouts)
    torch.testing.assert_close(first, (rollouts[0] - 3.0) / rollouts[0].std(correction=0))
    torch.testing.assert_close(second, (rollouts[1] - everything.mean()) / everything.std(correction=0))


def test_scaled_scores_do_not_depend_on_the_rewards_unit(tokenizer):
    def advantages(unit, **options):
        trainer = make("ppo", tokenizer, reward=lambda p, c: unit * length_of(p, c), whiten_advantages=False, **options)
        return trainer.collect(0, list(range(6)))["advantages"]

    torch.testing.assert_close(
        advantages(1.0, scale_scores=True), advantages(50.0, scale_scores=True), atol=1e-3, rtol=0
    )
    assert not torch.allclose(advantages(1.0), advantages(50.0), atol=1e-1)


def test_a_distance_that_no_kl_can_have_is_told(caplog):
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    warn_of_negative_kl(noise - noise.mean() - 0.2)  # below 0, but by chance
    warn_of_negative_kl(torch.tensor([-1.0, -1.1, -0.9]))  # too few to say
    assert not caplog.records
    warn_of_negative_kl(noise - noise.mean() - 1.0)
    assert "never below 0" in caplog.text


def test_a_completion_that_is_cut_off_pays_once(tokenizer):
    trainer = make("ppo", tokenizer, reward=lambda p, c: torch.zeros(len(p)), missing_end_penalty=2.0)
    batch = trainer.collect(0, [0, 1, 2, 3])
    assert torch.equal(batch["scores"], -2.0 * (~trainer.rollout.ended).float()) and (~trainer.rollout.ended).any()


def test_a_critic_warms_up_while_the_policy_waits(tokenizer):
    trainer = make("ppo", tokenizer, critic_warmup=2, prompts_per_rollout=6)
    before, critic = weights(trainer.policy).clone(), weights(trainer.critic).clone()
    trainer.train()
    assert torch.equal(weights(trainer.policy), before) and not torch.equal(weights(trainer.critic), critic)


def test_a_rollout_is_dropped_once_the_policy_is_too_far(tokenizer):
    far = make("ppo", tokenizer, stop_at_kl=1e-9, update_epochs=4, learning_rate=1e-2).train().rows
    near = make("ppo", tokenizer, update_epochs=4, learning_rate=1e-2).train().rows
    assert len({row["objective/scores"] for row in far}) > len({row["objective/scores"] for row in near})


def test_k1_in_the_loss_is_refused_because_it_pulls_nowhere():
    with pytest.raises(ValueError, match="pulls nowhere"):
        PPOConfig(kl_in="loss")
    assert PPOConfig(kl_in="loss", kl_estimator="k3").kl_in == "loss"
    with pytest.raises(ValueError, match="kl_estimator is None or one of 'k2', 'k3'"):
        GroupConfig(kl_estimator="k1")


def test_without_a_price_no_reference_is_held(tokenizer):
    free = make("ppo", tokenizer, kl_coefficient=0.0)
    assert free.reference is None and "objective/kl" not in free.train().rows[0]
    assert make("ppo", tokenizer).reference.frozen is not None


def test_a_reference_may_be_another_model_but_not_a_precomputed_one(tokenizer):
    policy, other = tiny_llama(len(tokenizer)), tiny_llama(len(tokenizer))
    config = OnlineConfig(kl_coefficient=0.1)
    trainer = PPOTrainer(policy, tokenizer, PROMPTS, PPOConfig(), reward=length_of, reference=other)
    assert trainer.reference.frozen is other and not any(p.requires_grad for p in other.parameters())
    with pytest.raises(ValueError, match="scores new samples"):
        PPOTrainer(policy, tokenizer, PROMPTS, PPOConfig(), reward=length_of, reference="precomputed")
    assert issubclass(PPOTrainer, OnlineTrainer) and config.completions == 1


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda p, c: torch.zeros(len(p), 2), "one number for each"),
        (lambda p, c: torch.full((len(p),), float("nan")), "nan for the prompt"),
        (lambda p, c: 1 / 0, "the reward function failed"),
    ],
)
def test_a_reward_function_that_fails_is_named_and_the_weights_stay(reward, message, tokenizer):
    trainer = make("ppo", tokenizer, reward=reward)
    before = weights(trainer.policy).clone()
    with pytest.raises(TrainingError, match=message):
        trainer.train()
    assert torch.equal(weights(trainer.policy), before)


def test_a_critic_begins_at_nothing_and_values_stand_before_their_token(tokenizer):
    policy = tiny_llama(len(tokenizer))
    critic = critic_of(policy)
    ids = torch.randint(6, 90, (2, 7))
    assert isinstance(critic, Critic) and not critic(ids, torch.ones_like(ids)).any()
    torch.nn.init.ones_(critic.head.weight)
    values = critic(ids, torch.ones_like(ids))
    changed = ids.clone()
    changed[:, 4] = 5
    other = critic(changed, torch.ones_like(ids))
    assert torch.allclose(values[:, :5], other[:, :5]) and not torch.allclose(values[:, 5], other[:, 5])
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), ids], 1), torch.tensor([[0] * 3 + [1] * 7] * 2)
    torch.testing.assert_close(critic(*padded)[:, 4:], values[:, 1:], atol=1e-5, rtol=1e-5)
    before = weights(policy).clone()
    with torch.no_grad():
        for weight in critic.body.parameters():
            weight.add_(1.0)
    assert torch.equal(weights(policy), before)  # the body is a copy


def test_prompts_come_once_a_pass_and_minibatches_are_dealt_from_each_rollout():
    seen = []

    def collect(number, indices):
        seen.append(indices)
        rows = torch.arange(2 * len(indices))
        return {"input_ids": rows[:, None], "attention_mask": torch.ones(len(rows), 1), "scores": rows.float()}

    batches = RolloutBatches(10, collect, prompts_per_rollout=5, rows_per_prompt=2, batch_size=4, update_epochs=2,
                             accumulation=2, seed=0)  # fmt: skip
    assert len(batches) == 2 * 2 * 2
    taken = [batches.take() for _ in range(len(batches))]
    assert sorted(sum(seen, [])) == list(range(10)) and all(len(parts) == 2 for parts in taken)
    first_epoch = torch.cat([part["scores"] for parts in taken[:2] for part in parts])
    assert sorted(first_epoch.tolist()) == list(range(10))
    batches.take()
    batches.drop_the_rest()
    batches.take()
    assert len(seen) == 4


def test_padding_changes_no_advantage():
    rewards, values = torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    plain, _ = generalized_advantage_estimate(rewards, values, mask)
    wide = [torch.cat([torch.full((2, 2), 9.0), t, torch.full((2, 3), 9.0)], 1) for t in (rewards, values)]
    wider = torch.cat([torch.zeros(2, 2), mask.float(), torch.zeros(2, 3)], 1).bool()
    padded, _ = generalized_advantage_estimate(*wide, wider)
    torch.testing.assert_close(padded[:, 2:6], plain)
    torch.testing.assert_close(whiten(padded, wider)[:, 2:6], whiten(plain, mask))


def shared(tokenizer, **options):
    return make("ppo", tokenizer, critic="shared", **options)


def test_a_shared_critic_is_one_layer_on_the_policys_states_and_one_pass_gives_both(tokenizer):
    trainer = shared(tokenizer)
    assert isinstance(trainer.critic, ValueHead) and trainer.critic.weight.numel() == 32
    torch.nn.init.normal_(trainer.critic.weight)
    batch = trainer.collect(0, [0, 1, 2])
    passes = []
    hook = trainer.policy.model.register_forward_hook(lambda *_: passes.append(1))
    logps, values, _ = trainer.read(trainer.policy, trainer.critic, batch)
    hook.remove()
    assert len(passes) == 1
    hidden = trainer.policy.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["completion_mask"]
    alone = trainer.critic(hidden[:, :-1])[mask[:, 1:]]
    torch.testing.assert_close(values[mask], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logps, trainer.logps(trainer.policy, batch), atol=1e-5, rtol=1e-5)
    assert not values[~mask].any()


def test_a_shared_critic_learns_resumes_and_warms_up_without_moving_the_policy(tokenizer, tmp_path):
    trainer = shared(tokenizer, critic_warmup=2, checkpoint_folder=tmp_path, checkpoint_every=1)
    before = weights(trainer.policy).clone()
    trainer.train()
    assert torch.equal(weights(trainer.policy), before) and trainer.critic.weight.any()
    again = shared(tokenizer, critic_warmup=2, checkpoint_folder=tmp_path, checkpoint_every=1)
    again.train(resume=True)
    assert torch.equal(again.critic.weight, trainer.critic.weight)
    other = shared(tokenizer)
    first = other.train().rows[0]
    assert not torch.equal(weights(other.policy), before) and first["val/ratio"] == pytest.approx(1, abs=1e-4)


def test_a_value_head_begins_at_nothing(tokenizer):
    policy = tiny_llama(len(tokenizer))
    assert not value_head_of(policy)(torch.randn(4, 32)).any()


def test_an_entropy_bonus_is_the_sum_of_the_tokens_entropies(tokenizer):
    trainer = make("ppo", tokenizer, entropy_coefficient=0.5, temperature=0.8, kl_coefficient=0.0)
    batch = trainer.collect(0, [0, 1, 2])
    with torch.no_grad():
        logits = trainer.policy(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1] / 0.8
        entropy = torch.distributions.Categorical(logits=logits).entropy()[batch["completion_mask"][:, 1:]].sum()
    loss, metrics = trainer.loss(trainer.policy, trainer.critic, batch)
    trainer.config.entropy_coefficient = 0.0
    plain, _ = trainer.loss(trainer.policy, trainer.critic, batch)
    assert (plain - loss).item() == pytest.approx(0.5 * entropy.item(), rel=1e-4)
    assert metrics["policy/entropy_avg"] == pytest.approx(entropy.item() / batch["completion_mask"].sum().item())


def test_an_entropy_bonus_keeps_the_policy_more_random(tokenizer):
    options = {"epochs": 10, "update_epochs": 2, "kl_coefficient": 0.0, "learning_rate": 1e-2}
    ends = [make("ppo", tokenizer, reward=early, entropy_coefficient=c, **options).train().rows[-1] for c in (0.0, 0.5)]
    assert ends[1]["objective/entropy"] > ends[0]["objective/entropy"]


def test_the_best_and_the_worst_of_a_group_make_a_pair_and_equal_ones_make_none(tokenizer):
    trainer = make("pairs", tokenizer, reward=lambda p, c: torch.tensor([1.0, 3, 2, 5, 5, 5]))
    batch = trainer.collect(0, [0, 1])
    everything = trainer.scored(trainer.rollout)
    assert trainer.of_rollout["pairs"] == 0.5 and len(batch["ref_chosen"]) == 1
    assert torch.equal(batch["input_ids"][0], everything["input_ids"][[1, 0]])
    assert batch["ref_chosen"][0] == everything["ref_logps"][1].sum()


def test_online_dpo_is_dpo_on_its_own_pairs(tokenizer):
    trainer = make("pairs", tokenizer, reward=early, kl_coefficient=0.3)
    batch = trainer.collect(0, [0, 1, 2, 3])
    torch.nn.init.normal_(trainer.policy.model.norm.weight, 1, 0.3)
    loss, metrics = trainer.loss(trainer.policy, batch)
    with torch.no_grad():
        by_hand = 0.0
        for i in range(len(batch["ref_chosen"])):
            h = []
            for side in range(2):
                ids, mask = batch["input_ids"][i, side], batch["completion_mask"][i, side]
                seen = batch["attention_mask"][i, side].bool()
                ids, mask = ids[seen], mask[seen]
                logps = trainer.policy(ids[None]).logits[0, :-1].log_softmax(-1)
                h.append(logps.gather(1, ids[1:, None])[:, 0][mask[1:]].sum())
            gap = h[0] - h[1] - batch["ref_chosen"][i] + batch["ref_rejected"][i]
            by_hand -= torch.nn.functional.logsigmoid(0.3 * gap).item()
    assert loss.item() == pytest.approx(by_hand, rel=1e-4) and {"rewards/margins", "pairs"} <= metrics.keys()


def test_iterative_dpo_compares_with_the_policy_that_drew(tokenizer):
    trainer = make("pairs", tokenizer, reward=early, compared_to="rollout")
    assert trainer.reference is None
    with torch.no_grad():
        for weight in trainer.policy.parameters():
            weight.mul_(1.1)
    batch = trainer.collect(0, [0, 1, 2])
    logps = trainer.logps(
        trainer.policy, {n: batch[n].flatten(0, 1) for n in ("input_ids", "attention_mask", "completion_mask")}
    )
    torch.testing.assert_close(logps.sum(1).view(-1, 2)[:, 0], batch["ref_chosen"], atol=1e-4, rtol=1e-4)


def test_online_pairs_take_losses_with_a_reference_and_functions(tokenizer):
    def mine(chosen, rejected, ref_chosen, ref_rejected, *, beta, reduction):
        return -(beta * (chosen - rejected)).sum()

    policy = tiny_llama(len(tokenizer))
    trainer = OnlinePreferenceTrainer(
        policy, tokenizer, PROMPTS, make("pairs", tokenizer).config, reward=length_of, loss=mine
    )
    assert trainer.train().rows and trainer.name == "online mine"
    with pytest.raises(ValueError, match="loss is one of dpo, cdpo, robust, ipo"):
        OnlinePreferenceTrainer(policy, tokenizer, PROMPTS, reward=length_of, loss="simpo")


def test_equal_rewards_everywhere_are_an_error_for_pairs(tokenizer):
    trainer = make("pairs", tokenizer, reward=lambda p, c: torch.ones(len(p)))
    with pytest.raises(TrainingError, match="equal rewards"):
        trainer.train()


@pytest.mark.parametrize("kind", ["ppo", "grpo", "pairs"])
def test_held_out_prompts_are_answered_and_the_best_model_is_kept(kind, tokenizer, tmp_path):
    def letters(prompts, completions):
        return torch.tensor([float(len(reply[0]["content"])) for reply in completions])

    looks = {"eval_every": 1, "checkpoint_folder": tmp_path, "keep_best": "+eval_objective/scores"}
    trainer = make(kind, tokenizer)
    config = dataclasses.replace(trainer.config, learning_rate=1e-2, **looks)
    trainer = type(trainer)(trainer.policy, tokenizer, PROMPTS[:8], config, reward=letters, eval_records=PROMPTS[8:])
    rows = trainer.train().rows
    scores = [row["eval_objective/scores"] for row in rows]
    best, _ = load_policy(str(tmp_path / "best"))
    trainer.policy.load_state_dict(best.state_dict())
    again = trainer.held_out_metrics(None)["objective/scores"]
    assert again == pytest.approx(max(scores))
    assert len(trainer.held_out_rollout) == 4 and len(set(scores)) > 1


def test_samples_are_drawn_while_it_trains(tokenizer):
    looks = Samples([PROMPTS[0]["prompt"], PROMPTS[1]["prompt"]], every=2, tokenizer=tokenizer, max_new_tokens=3)
    history = make("ppo", tokenizer).train(parts=[looks])
    steps = sorted({row["step"] for row in looks.rows})
    assert steps[:2] == [2, 4] and len(looks.rows) == 2 * len(steps) and history.rows[-1]["step"] == steps[-1]
    assert isinstance(looks.rows[0]["reply"], str)


def test_a_prompt_that_leaves_no_room_is_refused_before_training_or_dropped(tokenizer):
    policy = tiny_llama(len(tokenizer))
    long = [{"prompt": [{"role": "user", "content": "red " * 400}]}]
    config = PPOConfig(max_new_tokens=48, max_length=256)
    with pytest.raises(RecordError, match="48 new tokens"):
        PPOTrainer(policy, tokenizer, PROMPTS + long, config, reward=length_of)
    config = PPOConfig(max_new_tokens=48, max_length=256, over_long="drop")
    assert len(PPOTrainer(policy, tokenizer, PROMPTS + long, config, reward=length_of).training) == len(PROMPTS)


class Moves(Part):
    """Whether each step moved the policy."""

    def start(self, run):
        self.before, self.found = weights(run.unwrapped()["policy"]).clone(), []

    def after_step(self, run):
        now = weights(run.unwrapped()["policy"]).clone()
        self.found.append(not torch.equal(now, self.before))
        self.before = now


def test_a_minibatch_with_fewer_rows_than_micro_batches_still_makes_its_step(tokenizer):
    moves = Moves()
    make("ppo", tokenizer, prompts_per_rollout=3, batch_size=24, accumulation=4, reward=early).train(parts=[moves])
    assert moves.found == [True] * 4
    make("grpo", tokenizer, batch_size=18, accumulation=16, completions=9, prompts_per_rollout=2).train()


def test_prompts_that_do_not_fill_the_last_rollout_are_asked_once_all_the_same():
    seen = []

    def collect(number, indices):
        seen.append(list(indices))
        return {"input_ids": torch.zeros(len(indices), 1), "attention_mask": torch.ones(len(indices), 1)}

    batches = RolloutBatches(10, collect, prompts_per_rollout=4, rows_per_prompt=1, batch_size=2, update_epochs=1,
                             accumulation=1, seed=0)  # fmt: skip
    for _ in range(len(batches)):
        batches.take()
    assert sorted(sum(seen, [])) == list(range(10)) and [len(asked) for asked in seen] == [4, 4, 2]


def moved(kind, tokenizer, **options):
    """A trainer whose policy has left its reference."""
    trainer = make(kind, tokenizer, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainer.policy.parameters():
            weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
    return trainer


def test_shaped_rewards_of_a_policy_that_has_moved_sum_to_score_less_its_price(tokenizer):
    trainer = moved("ppo", tokenizer, gamma=1.0, lam=1.0, whiten_advantages=False, kl_coefficient=0.7)
    batch = trainer.collect(0, [0, 1, 2, 3])
    assert batch["kl"].abs().max() > 0.1
    first = batch["completion_mask"].int().argmax(1)
    returns = batch["returns"].gather(1, first[:, None])[:, 0]  # the first token's return is the sum of all rewards
    torch.testing.assert_close(returns, batch["scores"] - 0.7 * batch["kl"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ppo", "rloo", "pairs"])
def test_a_policy_with_adapters_starts_at_ratio_one_and_at_its_reference(kind, tokenizer):
    model = with_lora(tiny_llama(len(tokenizer)))
    trainer = make(kind, tokenizer, model=model, reward=early, update_epochs=1)
    first = trainer.train().rows[0]
    assert trainer.reference.kind == "adapter-off" and first["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert kind == "pairs" or first["val/ratio_max"] == pytest.approx(1, abs=1e-4)
    if kind == "ppo":
        trained = [name for name, p in trainer.critic.named_parameters() if p.requires_grad]
        assert all("lora_" in name or name.startswith("head") for name in trained)


def test_adapters_on_weights_in_half_precision_are_not_folded_in(tokenizer):
    model = with_lora(tiny_llama(len(tokenizer)).bfloat16())
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2e-4)
    before = weights(model).clone()
    with merged_adapters(model):
        assert torch.equal(weights(model), before)


def test_rewards_can_be_used_in_a_loss(tokenizer):
    torch.manual_seed(0)
    config = copy.deepcopy(tiny_llama(len(tokenizer)).config)
    config.num_labels = 1
    score = learned_reward(LlamaForSequenceClassification(config), tokenizer)
    prompts = [row["prompt"] for row in PROMPTS[:2]]
    found = score(prompts, [[{"role": "assistant", "content": "red."}]] * 2)
    weight = torch.ones(2, requires_grad=True)
    (found * weight).sum().backward()
    assert torch.equal(weight.grad, found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: GroupConfig(loss="rloo", normalise="token"), "takes no normalise"),
        (lambda: GroupConfig(loss="rloo", kl_estimator="k2"), "takes no kl_estimator"),
        (lambda: PPOConfig(clip_range=1.0), "clip_range is a number above 0 and below 1"),
        (lambda: PPOConfig(target_kl=1.0, kl_coefficient=0.0), "start above 0"),
    ],
)
def test_settings_that_could_do_nothing_or_harm_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


def test_values_may_move_freely(tokenizer):
    rows = make("ppo", tokenizer, value_clip_range=float("inf"), reward=early).train().rows
    assert rows[-1]["val/clipfrac_avg"] == 0


def test_a_group_of_equal_scores_is_counted_though_its_distances_differ(tokenizer):
    trainer = moved("rloo", tokenizer, reward=lambda p, c: torch.ones(len(p)), kl_coefficient=0.5)
    trainer.collect(0, [0, 1])
    assert trainer.of_rollout["groups/all_equal"] == 1


def test_the_parts_of_a_reward_are_logged(tokenizer):
    reward = weighted_reward({"early": (1.0, early), "short": (0.5, length_of)})
    row = make("ppo", tokenizer, reward=reward).train().rows[0]
    assert row["objective/scores"] == pytest.approx(row["reward/early"] + 0.5 * row["reward/short"], abs=1e-5)
    both = make("ppo", tokenizer, reward=ensemble_reward([early, length_of])).train().rows[0]
    assert both["reward/disagreement"] > 0


def test_a_reference_that_no_method_has_is_refused_even_where_none_is_held(tokenizer):
    with pytest.raises(ValueError, match="'auto', 'copy', 'adapter-off' or a model"):
        PPOTrainer(tiny_llama(len(tokenizer)), tokenizer, PROMPTS, PPOConfig(kl_coefficient=0.0), reward=early,
                   reference="nonsense")  # fmt: skip
