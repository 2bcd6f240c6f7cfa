"""Rollouts through vLLM's interface, spoken by a stand-in that runs a real model: weights, log-probabilities, ends.

The stand-in keeps what vLLM keeps: adapters by their number, and prompts' states until it is told to forget them. It
draws and scores in its own way, from whole forward passes, so that it is an oracle for what comes out.
"""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from course_lib import PPOConfig, PPOTrainer
from course_lib.logprobs import all_logits
from course_lib.rollouts import Decoding, VLLMRollouts, roll_out, stop_ids

PROMPTS = ["a b c", "d e", "f g h i"]


@dataclass
class SamplingParams:
    """Those of vLLM's that are used here, with its defaults."""

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    max_tokens: int = 16
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class LLM:
    """Weights from a folder, completions one token at a time; `breaks` names requests that are broken off."""

    started: list = []

    def __init__(self, model: str, logprobs_mode: str = "raw_logprobs", **engine):
        self.base, self.source, self.mode, self.engine = load(model), model, logprobs_mode, engine
        self.adapters, self.stale, self.asked, self.tokenizer, self.breaks = {}, False, [], None, set()
        LLM.started.append(self)

    def collective_rpc(self, method: str, kwargs: dict):
        assert method == "reload_weights"
        self.base, self.stale = load(kwargs["weights_path"]), True

    def reset_prefix_cache(self):
        self.stale = False

    def generate(self, prompts, sampling_params, *, lora_request=None, use_tqdm=True):
        assert not self.stale, "new weights would meet the states that old ones left"
        self.asked += sampling_params
        model = self.base if lora_request is None else self.adapted(lora_request)
        pairs = zip(prompts, sampling_params, strict=True)
        outputs = [self.complete(model, prompt["prompt_token_ids"], params) for prompt, params in pairs]
        for number in self.breaks:
            outputs[number].finish_reason = "abort"
        return [SimpleNamespace(outputs=[output]) for output in outputs]

    def adapted(self, request: LoRARequest):
        if request.lora_int_id not in self.adapters:  # a number that is known is never read again
            assert self.engine["enable_lora"] and self.engine["max_lora_rank"] in (8, 16)
            self.adapters[request.lora_int_id] = PeftModel.from_pretrained(load(self.source), request.lora_path).eval()
        return self.adapters[request.lora_int_id]

    @torch.no_grad()
    def complete(self, model, prompt: list[int], params: SamplingParams):
        assert params.n == 1 and params.logprobs == 0 and params.ignore_eos
        noise, ids, logprobs, reason = torch.Generator().manual_seed(params.seed), [], [], "length"
        while len(ids) < params.max_tokens and reason == "length":
            logits = model(torch.tensor([prompt + ids])).logits[0, -1].double()
            drawn = processed(logits, params)
            token = int(drawn.softmax(0).multinomial(1, generator=noise))
            scored = drawn if self.mode == "processed_logprobs" else logits
            ids.append(token)
            logprobs.append({token: SimpleNamespace(logprob=scored.log_softmax(0)[token].item(), rank=1)})
            text = self.tokenizer.decode(ids) if params.detokenize and self.tokenizer else ""
            if token in params.stop_token_ids or any(stop in text for stop in params.stop):
                reason = "stop"
        return SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs, finish_reason=reason)


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def processed(logits, params):
    """Logits after temperature, top-k and top-p."""
    logits = logits / params.temperature
    order = logits.sort(descending=True).indices
    keep = order[: params.top_k] if params.top_k else order
    shares = logits[keep].softmax(0)
    keep = keep[shares.cumsum(0) - shares < params.top_p]
    return torch.full_like(logits, float("-inf")).index_put((keep,), logits[keep])


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    module, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    module.LLM, module.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest
    monkeypatch.setattr(LLM, "started", [])
    for name, what in {"vllm": module, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}.items():
        monkeypatch.setitem(sys.modules, name, what)


@pytest.fixture
def saved(letters, tmp_path):
    """A tiny model with its folder: what it says next is far from even."""
    model = tiny_llama(len(letters))
    with torch.no_grad():
        model.lm_head.weight.mul_(25)
    model.config.eos_token_id = model.generation_config.eos_token_id = letters.eos_token_id
    model.save_pretrained(tmp_path / "model")
    letters.save_pretrained(tmp_path / "model")
    return model, str(tmp_path / "model")


def with_adapters(model, rank: int = 4):
    model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model.eval()


def change(model) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.05)


def scored(model, rollout, decoding: Decoding) -> list[list[float]]:
    """Each completion's log-probabilities from a forward pass over it alone."""
    found = []
    for prompt, done in zip(rollout.prompt_ids, rollout.completions, strict=True):
        ids = torch.tensor([prompt + done.ids])
        logits = all_logits(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0, len(prompt) - 1 : -1]
        logps = decoding.log_probabilities(logits)
        found.append(logps.gather(1, torch.tensor(done.ids)[:, None])[:, 0].tolist())
    return found


SETTINGS = [Decoding(), Decoding(0.7), Decoding(1.3, top_k=5), Decoding(top_p=0.8)]


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("decoding", SETTINGS, ids=str)
def test_log_probabilities_are_those_of_the_policy_as_it_is_now(adapters, decoding, saved, letters):
    model, folder = saved
    policy = with_adapters(model) if adapters else model
    rollouts = VLLMRollouts(folder)
    for _ in range(3):
        rollout = rollouts(policy, letters, PROMPTS, n=2, max_new_tokens=6, decoding=decoding)
        for done, expected in zip(rollout.completions, scored(policy, rollout, decoding), strict=True):
            assert done.logps == pytest.approx(expected, abs=1e-4)
            assert not decoding.plain or done.plain_logps == done.logps
            assert decoding.plain or all(map(torch.isnan, torch.tensor(done.plain_logps)))
        change(policy)
    assert len(LLM.started) == 1


def test_a_rollout_has_the_form_of_roll_out_s(saved, letters):
    model, folder = saved
    ours, theirs = (draw(model, letters, PROMPTS, n=3, max_new_tokens=5) for draw in (roll_out, VLLMRollouts(folder)))
    assert (ours.prompts, ours.prompt_ids, ours.n, ours.decoding) == (
        theirs.prompts, theirs.prompt_ids, theirs.n, theirs.decoding,
    )  # fmt: skip
    first, second = ours.batch(0), theirs.batch(0)
    assert first.keys() == second.keys()
    assert {n: v.dtype for n, v in first.items()} == {n: v.dtype for n, v in second.items()}
    spoken = [done.ids[:-1] if done.ended else done.ids for done in theirs.completions]
    assert theirs.texts == letters.batch_decode(spoken, skip_special_tokens=True)


def test_what_ended_and_what_was_cut_off_is_told_apart(saved, letters):
    model, folder = saved
    rollout = VLLMRollouts(folder)(model, letters, PROMPTS * 8, max_new_tokens=12)
    stops = stop_ids(model, letters)
    assert 0 < rollout.ended.sum() < len(rollout)
    for done in rollout.completions:
        assert done.ended == (done.ids[-1] in stops) and not stops & set(done.ids[:-1])
        assert done.ended or len(done.ids) == 12


def test_stop_strings_end_a_completion(saved, letters):
    model, folder = saved
    rollouts = VLLMRollouts(folder)
    plain = rollouts(model, letters, PROMPTS, max_new_tokens=8)
    word = letters.decode(plain.completions[0].ids[1:2])
    rollouts.llm.tokenizer = letters
    rollout = rollouts(model, letters, PROMPTS, max_new_tokens=8, stop_strings=[word])
    assert rollout.completions[0].ids == plain.completions[0].ids[:2] and rollout.completions[0].ended


def test_each_completion_has_a_seed_of_its_own_that_its_place_and_the_rollout_s_seed_give(saved, letters):
    model, folder = saved
    rollouts = VLLMRollouts(folder)

    def drawn(prompts, **options):
        rollout = rollouts(model, letters, prompts, n=2, max_new_tokens=8, **options)
        return [done.ids for done in rollout.completions]

    whole = drawn(["a b"] * 3)
    assert len(set(map(tuple, whole))) > 1 and whole == drawn(["a b"] * 3)
    assert whole != drawn(["a b"] * 3, seed=1)
    assert drawn(["a b"], first=2) == whole[4:]
    seeds = [params.seed for params in rollouts.llm.asked[:6]]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_engine_is_asked_for_what_tokens_were_drawn_with_in_the_policy_s_type(saved, letters):
    model, folder = saved
    VLLMRollouts(folder, gpu_memory_utilization=0.3)(model, letters, PROMPTS, max_new_tokens=2)
    VLLMRollouts(folder, dtype="bfloat16")(with_adapters(model, rank=9), letters, PROMPTS, max_new_tokens=2)
    whole, adapted = LLM.started
    assert whole.mode == "processed_logprobs" and whole.engine == {"dtype": "float32", "gpu_memory_utilization": 0.3}
    lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": 16}
    assert adapted.engine == {"dtype": "bfloat16", **lora}


def test_weights_that_were_handed_over_leave_no_files(saved, letters, tmp_path):
    model, folder = saved
    (tmp_path / "over").mkdir()
    rollouts = VLLMRollouts(folder, folder=tmp_path / "over")
    rollouts(model, letters, PROMPTS, max_new_tokens=2)
    VLLMRollouts(folder, folder=tmp_path / "over")(with_adapters(model), letters, PROMPTS, max_new_tokens=2)
    assert not list((tmp_path / "over").iterdir())


def test_an_adapter_of_any_name_is_the_one_that_draws(saved, letters):
    model, folder = saved
    policy = with_adapters(model)
    policy.add_adapter("second", LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    policy.set_adapter("second")
    rollout = VLLMRollouts(folder)(policy, letters, PROMPTS, max_new_tokens=4)
    for done, expected in zip(rollout.completions, scored(policy, rollout, Decoding()), strict=True):
        assert done.logps == pytest.approx(expected, abs=1e-4)
    policy.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="one adapter; active are default, second"):
        VLLMRollouts(folder)(policy, letters, PROMPTS)


def test_settings_that_vllm_would_take_otherwise_are_refused(saved, letters):
    model, folder = saved
    rollouts = VLLMRollouts(folder)
    for options, what in [
        ({"decoding": Decoding(0)}, "at temperature 0 nothing is"),
        ({"decoding": Decoding(0.005)}, "at least 0.01"),
        ({"max_new_tokens": 400}, "256 positions"),
        ({"n": 0}, "n is a whole number"),
    ]:
        with pytest.raises(ValueError, match=what):
            rollouts(model, letters, PROMPTS, **options)
    with pytest.raises(ValueError, match="logprobs_mode is set by VLLMRollouts"):
        VLLMRollouts(folder, logprobs_mode="raw_logprobs")
    model.is_loaded_in_4bit = True
    with pytest.raises(ValueError, match="4 or 8 bits.*quantization="):
        rollouts(model, letters, PROMPTS)


def test_completions_that_vllm_broke_off_are_no_rollout(saved, letters):
    model, folder = saved
    rollouts = VLLMRollouts(folder)
    rollouts(model, letters, PROMPTS, max_new_tokens=2)
    rollouts.llm.breaks = {1}
    with pytest.raises(RuntimeError, match="finish_reason='abort'"):
        rollouts(model, letters, PROMPTS, max_new_tokens=2)


def test_without_vllm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"pip install 'course-lib\[vllm\]'"):
        VLLMRollouts("anything")


class WithVLLM(PPOTrainer):
    """PPO whose rollouts another engine draws."""

    rollouts: VLLMRollouts

    def roll_out(self, indices, n, seed, **where):
        return self.rollouts(
            self.policy, self.tokenizer, [self.records[i]["prompt"] for i in indices], n=n, seed=seed,
            max_new_tokens=self.config.max_new_tokens, decoding=Decoding(self.config.temperature),
            encoded=[self.rows[i].prompt_ids for i in indices], **where,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ppo_s_first_ratio_is_one_on_every_rollout(adapters, temperature, saved, letters):
    model, folder = saved
    policy = with_adapters(model) if adapters else model
    config = PPOConfig(
        progress=False, prompts_per_rollout=6, batch_size=6, update_epochs=1, max_new_tokens=6, learning_rate=1e-2,
        temperature=temperature, epochs=3, log_every=1,
    )  # fmt: skip
    records = [{"prompt": prompt} for prompt in PROMPTS * 2]
    reward = lambda prompts, texts: torch.tensor([float(len(text)) for text in texts])  # noqa: E731
    trainer = WithVLLM(policy, letters, records, config, reward=reward)
    trainer.rollouts = VLLMRollouts(folder)
    before = [weight.clone() for weight in policy.parameters()]
    rows = trainer.train().rows
    assert len(rows) == 3 and any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    for row in rows:
        assert row["val/ratio"] == pytest.approx(1, abs=1e-4) and row["val/ratio_max"] == pytest.approx(1, abs=1e-4)
