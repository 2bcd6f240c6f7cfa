"""One training step of real transformers models under the tracker, on fake tensors or real ones."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch._subclasses import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, DynamicCache
from transformers import AutoModelForSequenceClassification as Classifier

from course_lib.logprobs import linear_logps
from course_lib.memory.tracker import MemoryTracker
from course_lib.sizing.settings import ONLINE, Settings


def _flash(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention by PyTorch's fused kernel without a mask tensor, as on a GPU where no row is padded."""
    grouped, causal = query.shape[1] != key.shape[1], query.shape[2] > 1
    out = F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("maskless", _flash)
AttentionMaskInterface.register("maskless", lambda *_, **__: None)


@dataclass
class Truth:
    """Bytes of the states, of the largest phase, and of each phase."""

    states: int
    peak: int
    phase: str
    phases: dict[str, int]


class PlainAdamW:
    """AdamW whose state does not have the weights' dtype: fp32 moments, an fp32 master copy, or 8-bit moments.

    It goes tensor by tensor; the kernel for 8 bits keeps its intermediates in registers.
    """

    def __init__(self, params, kind: str):
        self.params, self.in_registers = list(params), kind == "adamw-8bit"
        self.state = [self._state(p.detach(), kind) for p in self.params]

    def _state(self, p, kind: str) -> list:
        if kind == "adamw-8bit" and p.numel() >= 4096:
            scales = -(-p.numel() // 256)
            blocks = [torch.zeros(scales, dtype=torch.float32) for _ in range(2)]
            return [torch.zeros_like(p, dtype=torch.uint8) for _ in range(2)] + blocks
        copies = 3 if kind == "adamw-master" and p.dtype != torch.float32 else 2
        return [torch.zeros_like(p, dtype=torch.float32) for _ in range(copies)]

    @torch.no_grad()
    def step(self):
        for p, (first, second, *_) in zip(self.params, self.state, strict=True):
            if not self.in_registers and p.grad is not None:  # what "flash" leaves out, such as sinks, has none
                self._update(p, first, second)

    def _update(self, p, first, second):
        gradient = p.grad.float() if p.dtype != torch.float32 else p.grad * 1.0
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        denominator = second.sqrt().add_(1e-8)
        p.add_(first / denominator, alpha=-1e-6)

    def zero_grad(self):
        for p in self.params:
            p.grad = None


def measure_step(config, algorithm: str, *, fake=True, **options) -> Truth:
    """Bytes of one step in its steady state (the optimiser's moments exist); `options` as `estimate_memory`'s."""
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext()
    with mode, MemoryTracker() as tracker:
        pipeline = Pipeline(config, Settings(algorithm, **options), tracker, fake)
        states = pipeline.prepare()
        pipeline.step()
    phase = max(tracker.phases, key=tracker.phases.get)
    return Truth(states, tracker.phases[phase], phase, dict(tracker.phases))


def measure_trainer(build_model, train) -> int:
    """The most bytes that `train(model)`, a run of a real trainer, holds at once, its model and reference included.

    What building the model held besides, such as weights before they were quantised, does not count.
    """
    with MemoryTracker() as tracker:
        model = build_model()
        gc.collect()
        tracker.peak = tracker.live
        train(model)
    return tracker.peak


class Pipeline:
    """The models of an algorithm, and one step of its training."""

    def __init__(self, config, settings: Settings, tracker: MemoryTracker, fake: bool):
        config.num_labels = 1
        self.config, self.settings, self.tracker, self.fake = config, settings, tracker, fake
        online = settings.algorithm in ONLINE
        self.policy = self.build(Classifier if settings.algorithm == "reward" else AutoModelForCausalLM, trained=True)
        ppo = settings.algorithm == "ppo"
        self.critic = self.build(Classifier, trained=True) if ppo and settings.critic == "separate" else None
        self.value_head = self.build_value_head() if ppo and settings.critic == "shared" else None
        self.reward = self.build(Classifier, trained=False) if online and settings.reward_model else None
        self.reference = self.build(AutoModelForCausalLM, trained=False) if self.holds_reference else None

    @property
    def holds_reference(self) -> bool:
        return self.settings.reference_kind == "copy"

    @property
    def models(self) -> list:
        found = (self.policy, self.critic, self.value_head, self.reward, self.reference)
        return [model for model in found if model is not None]

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.settings.precision == "bf16" else torch.float32

    def build(self, auto, trained: bool):
        attention = "eager" if self.settings.attention == "eager" else "maskless"
        with torch.device("meta" if self.fake else "cpu"):
            model = auto.from_config(self.config, dtype=self.dtype, attn_implementation=attention)
            if auto is Classifier:
                model.config.pad_token_id = 0
            model = self.trainable(model, auto) if trained else model.requires_grad_(False).eval()
        return _materialise(model, self.fake)

    def build_value_head(self):
        with torch.device("meta" if self.fake else "cpu"):
            head = torch.nn.Linear(self.config.hidden_size, 1, bias=False, dtype=self.dtype)
        return _materialise(head, self.fake)

    def trainable(self, model, auto):
        s = self.settings
        if s.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if s.lora_rank:
            model.enable_input_require_grads() if s.gradient_checkpointing else None
            lora = LoraConfig(r=s.lora_rank, lora_alpha=2 * s.lora_rank, target_modules=_adapted(model),
                              task_type="SEQ_CLS" if auto is Classifier else "CAUSAL_LM")  # fmt: skip
            model = get_peft_model(model, lora, autocast_adapter_dtype=s.adapter_precision == "fp32")
            if s.adapter_precision == "bf16":  # which PEFT does itself, but not on the meta device
                for name, p in model.named_parameters():
                    p.data = p.data.bfloat16() if "lora_" in name else p.data
        return model.train()

    def prepare(self) -> int:
        """Make optimiser and gradients, then take a first optimiser step; returns the bytes of the states."""
        s = self.settings
        self.trained = [p for model in self.models for p in model.parameters() if p.requires_grad]
        if s.optimizer == "adamw":
            self.adam = torch.optim.AdamW(self.trained, fused=s.fused, foreach=not s.fused)
        else:
            self.adam = PlainAdamW(self.trained, s.optimizer)
        for p in self.trained:
            p.grad = torch.zeros_like(p)
        states = self.tracker.live - sum(b.nbytes for model in self.models for b in model.buffers())
        self.adam.step()
        self.adam.zero_grad()
        if s.optimizer == "adamw":
            states += sum(t.nbytes for state in self.adam.state.values() for t in state.values() if t.dim())
        return states

    def step(self) -> None:
        s, phase = self.settings, self.tracker.phase
        self.ids = torch.zeros(s.rows, s.sequence_length, dtype=torch.long)
        if s.algorithm in ONLINE:
            self.rollout()
            self.scoring()
        with self.autocast():
            loss, kept = self.online_loss() if s.algorithm in ONLINE else self.offline_loss()
        with phase("backward"):
            loss.backward()
        del loss, kept
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        with phase("optimizer"):
            self.adam.step()

    def offline_loss(self):
        """The loss of a method without samples, and what its training loop keeps of the model's output."""
        s, kept = self.settings, None
        ref = self.reference_logps() if s.reference_order == "before" else None
        with self.tracker.phase("policy forward"):
            if s.algorithm == "sft" and s.logits == "full":
                kept = self.policy(input_ids=self.ids, labels=self.ids, use_cache=False)
                return kept.loss, kept
            if s.algorithm == "reward":
                rewards = _head(self.policy, _last_hidden(self.policy, self.ids)).float().squeeze(-1)
                return -F.logsigmoid(-rewards.view(2, -1).diff(dim=0)).mean(), kept
            logps = self.logps(self.policy).sum(-1)
        if s.reference_order == "after":
            ref = self.reference_logps()
        return (-logps if ref is None else -F.logsigmoid(logps - ref)).mean(), kept

    @torch.no_grad()
    def scoring(self) -> None:
        """All models read the samples, each in an autocast of its own, whose copies of weights have no gradients."""
        with self.tracker.phase("scoring"):
            with self.autocast():
                self.old = self.logps(self.policy)
            with self.autocast():
                self.ref = self.reference_logps()
            for model in (self.critic, self.reward):
                with self.autocast():
                    model is None or _head(model, _hidden(model, self.ids)).float()

    def online_loss(self):
        """The loss on the samples, and nothing else that is kept."""
        with self.tracker.phase("policy forward"):
            logps, values = self.logps_and_values()
        if self.critic is not None:
            with self.tracker.phase("critic forward"):
                values = _head(self.critic, _hidden(self.critic, self.ids)).float().squeeze(-1)
        loss = ((logps - self.old).exp() - (0 if self.ref is None else self.ref[:, None])).mean()
        return loss if values is None else loss + (values**2).mean(), None

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.settings.precision == "autocast")

    def logps_and_values(self):
        if self.value_head is None:
            return self.logps(self.policy), None
        hidden = _hidden(self.policy, self.ids)
        return self.logps_of(hidden), self.value_head(hidden).float().squeeze(-1)

    def reference_logps(self):
        kind = self.settings.reference_kind
        if kind not in ("copy", "adapter-off"):
            return None
        off = self.policy.disable_adapter() if kind == "adapter-off" else contextlib.nullcontext()
        online = self.settings.algorithm in ONLINE
        with self.tracker.phase("scoring" if online else "reference forward"), torch.no_grad(), off:
            return self.logps(self.reference if kind == "copy" else self.policy).sum(-1)

    @torch.no_grad()
    def rollout(self) -> None:
        """The last token of the samples: all keys and values are there, and one more token is drawn.

        The token before it makes sliding layers let go of the prompt's keys and values.
        """
        self.policy.eval()
        with self.autocast():
            cache = DynamicCache(config=self.config)
            for part in (self.ids[:, :-2], self.ids[:, -2:-1]):
                self.policy(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
            with self.tracker.phase("rollout"):
                logits = self.policy(input_ids=self.ids[:, -1:], past_key_values=cache, use_cache=True).logits
                logits[:, -1].float().softmax(-1)
        self.policy.train()

    @property
    def completion(self) -> int:
        return min(self.settings.completion_length or self.settings.sequence_length, self.settings.sequence_length - 1)

    def logps(self, model):
        """Log-probabilities of the completion's tokens, by way of the logits that `settings.logits` names."""
        if self.settings.logits == "chunked":
            return self.logps_of(_hidden(model, self.ids), model)
        keep = {"logits_to_keep": self.completion + 1} if self.settings.logits == "completion" else {}
        return self.of_logits(model(input_ids=self.ids, use_cache=False, **keep).logits)

    def logps_of(self, hidden, model=None):
        head, cap = _base(model or self.policy).lm_head, getattr(self.config, "final_logit_softcapping", None)
        if self.settings.logits != "chunked":
            first = -self.completion - 1 if self.settings.logits == "completion" else 0
            logits = head(hidden[:, first:])
            return self.of_logits(torch.tanh(logits / cap) * cap if cap else logits)
        places = torch.arange(-self.completion - 1, -1) % self.settings.sequence_length
        scored = (torch.arange(self.settings.rows)[:, None] * self.settings.sequence_length + places).flatten()
        hidden = hidden.flatten(0, 1).index_select(0, scored)
        targets = self.ids.flatten().index_select(0, scored)
        return linear_logps(hidden, head.weight, targets, softcap=cap).view(self.settings.rows, -1)

    def of_logits(self, logits):
        targets = self.ids[:, 1 - logits.shape[1] :, None]
        return logits[:, :-1].float().log_softmax(-1).gather(-1, targets).squeeze(-1)


def _adapted(model) -> str | list[str]:
    """Of a mixture of experts attention's layers alone, as `course_lib.models` adapts them."""
    if not any(p.dim() == 3 for p in model.parameters()):
        return "all-linear"
    return [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "attn" in name]


def _materialise(model, fake: bool):
    """Parameters and buffers as tensors of the running mode: meta tensors become fake ones, ties kept."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules() if fake else ():
        for store in (module._parameters, module._buffers):
            for name, old in store.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if store is module._parameters else new
                store[name] = None if old is None else made[id(old)]
    return model


def _hidden(model, ids):
    return _base(model).base_model(input_ids=ids, use_cache=False).last_hidden_state


def _last_hidden(model, ids):
    """Each row's last hidden state, as a copy: a view would keep those of all tokens alive."""
    return _hidden(model, ids)[range(len(ids)), [-1] * len(ids)]


def _head(model, hidden):
    return _base(model).score(hidden)


def _base(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model
