"""One training step of real transformers models under the tracker, on fake tensors or real ones."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch._subclasses import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification as Classifier

from course_lib.logprobs import linear_logps
from course_lib.memory.tracker import MemoryTracker


def _flash(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention by PyTorch's fused kernel without a mask tensor, as on a GPU where no row is padded."""
    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("maskless", _flash)
AttentionMaskInterface.register("maskless", lambda *_, **__: None)


@dataclass
class Truth:
    states: int
    peak: int
    phase: str
    phases: dict[str, int]


class PlainAdamW:
    """AdamW whose state does not have the weights' dtype: fp32 moments, an fp32 master copy, or 8-bit moments.

    `fused` stands for a kernel that keeps its intermediates in registers.
    """

    def __init__(self, params, kind: str, fused: bool):
        self.params, self.fused = list(params), fused
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
            if not self.fused and first.dtype == torch.float32:
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


def measure_step(
    config,
    algorithm: str,
    *,
    precision="bf16",
    optimizer="adamw-fp32",
    fused=True,
    lora_rank=None,
    adapter_precision="fp32",
    reference=None,
    reference_order="after",
    gradient_checkpointing=False,
    attention="flash",
    batch_size=1,
    sequence_length=1024,
    completion_length=None,
    logits="full",
    critic="separate",
    fake=True,
) -> Truth:
    """Bytes of one step in its steady state (the optimiser's moments exist already); arguments as `estimate_memory`."""
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext()
    reference = reference or ("adapter-off" if lora_rank else "copy")
    if algorithm in ("sft", "simpo", "orpo", "reward"):
        reference = "precomputed"
    config.num_labels = 1
    with mode, MemoryTracker() as tracker:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        options = {"dtype": dtype, "attn_implementation": "eager" if attention == "eager" else "maskless"}

        def build(auto, trained: bool):
            with torch.device("meta" if fake else "cpu"):
                model = adapt(auto.from_config(config, **options), auto, trained)
            return _materialise(model, fake)

        def adapt(model, auto, trained: bool):
            if auto is Classifier:
                model.config.pad_token_id = 0
            if not trained:
                return model.requires_grad_(False).eval()
            if gradient_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            if lora_rank:
                model.enable_input_require_grads() if gradient_checkpointing else None
                lora = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear",
                                  task_type="SEQ_CLS" if auto is Classifier else "CAUSAL_LM")  # fmt: skip
                model = get_peft_model(model, lora, autocast_adapter_dtype=adapter_precision == "fp32")
                if adapter_precision == "bf16":  # which PEFT does itself, but not on the meta device
                    for name, p in model.named_parameters():
                        p.data = p.data.bfloat16() if "lora_" in name else p.data
            return model.train()

        policy = build(Classifier if algorithm == "reward" else AutoModelForCausalLM, True)
        value = build(Classifier, True) if algorithm == "ppo" else None
        frozen = build(AutoModelForCausalLM, False) if reference == "copy" else None
        scorer = build(Classifier, False) if algorithm == "ppo" else None
        trained = [p for m in (policy, value) if m is not None for p in m.parameters() if p.requires_grad]
        if optimizer == "adamw":
            adam = torch.optim.AdamW(trained, fused=fused, foreach=not fused)
        else:
            adam = PlainAdamW(trained, optimizer, fused)
        for p in trained:
            p.grad = torch.zeros_like(p)
        models = [m for m in (policy, value, frozen, scorer) if m is not None]
        states = tracker.live - sum(b.nbytes for m in models for b in m.buffers())
        adam.step()
        adam.zero_grad()
        if optimizer == "adamw":
            states += sum(t.nbytes for s in adam.state.values() for t in s.values() if t.dim())
        pairs = algorithm in ("dpo", "ipo", "simpo", "orpo", "reward")
        rows = batch_size * (2 if pairs else 1)
        ids = torch.zeros(rows, sequence_length, dtype=torch.long)
        completion = completion_length or sequence_length - 1
        scored = torch.arange(rows)[:, None] * sequence_length + torch.arange(-completion - 1, -1) % sequence_length
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast")

        def logps(model):
            return _logps(model, ids, logits, completion, scored.flatten()).sum(-1)

        def reference_logps():
            if reference == "precomputed":
                return torch.zeros(rows)
            off = policy.disable_adapter() if reference == "adapter-off" else contextlib.nullcontext()
            with tracker.phase("reference forward"), torch.no_grad(), off:
                return logps(frozen if frozen is not None else policy)

        kept = None
        with autocast:
            ref = reference_logps() if reference_order == "before" else None
            with tracker.phase("policy forward"):
                if algorithm == "sft" and logits == "full":
                    kept = policy(input_ids=ids, labels=ids, use_cache=False)
                    loss = kept.loss
                elif algorithm == "reward":
                    rewards = _head(policy, _last_hidden(policy, ids)).float().squeeze(-1)
                    loss = -F.logsigmoid(-rewards.view(2, -1).diff(dim=0)).mean()
                else:
                    loss = logps(policy)
                    loss = -loss.mean() if algorithm in ("sft", "simpo", "orpo") else loss
            if ref is None and algorithm not in ("sft", "reward"):
                ref = reference_logps()
            if value is not None:
                with tracker.phase("critic forward"):
                    values = _head(value, _hidden(value, ids)).float().squeeze(-1)
                    loss = loss.mean() + (values**2).mean()
            if ref is not None:
                loss = -F.logsigmoid(loss - ref).mean()
        with tracker.phase("backward"):
            loss.backward()
        del kept
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        with tracker.phase("optimizer"):
            adam.step()
        phase = max(tracker.phases, key=tracker.phases.get)
        return Truth(states, tracker.phases[phase], phase, dict(tracker.phases))


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


def _logps(model, ids, how: str, completion: int, scored):
    if how == "chunked":
        hidden = _hidden(model, ids).flatten(0, 1).index_select(0, scored)
        targets = ids.flatten().index_select(0, scored)
        return linear_logps(hidden, _base(model).lm_head.weight, targets).view(len(ids), -1)
    keep = {"logits_to_keep": completion + 1} if how == "completion" else {}
    logits = model(input_ids=ids, use_cache=False, **keep).logits[:, :-1]
    targets = ids[:, -logits.shape[1] :, None]
    return logits.float().log_softmax(-1).gather(-1, targets).squeeze(-1)
