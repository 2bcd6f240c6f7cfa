"""DeepSpeed: weights, gradients and moments in shards, one on each process, behind the loop's own words.

All that knows DeepSpeed is here, and it is imported only where a run was started with it. One engine holds one model,
so that a critic is clipped apart from its policy, as without engines. Where nothing is sharded, every function that
takes a model leaves it as it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers.integrations import unset_hf_deepspeed_config

from course_lib.trainers.config import TrainingConfig

_engines: WeakKeyDictionary[nn.Module, ref] = WeakKeyDictionary()  # of the models that are sharded


class Engines(torch.optim.Optimizer):
    """The engines of a run as one optimiser: its state has the form of `torch.optim.AdamW`'s, gathered from all shards.

    `modules` are to be trained, by name; `groups` are what the optimiser of each is told, and `optimizer_of` makes it.

    Raises:
        ValueError: for settings that engines have no way to follow.
    """

    def __init__(self, accelerator: Accelerator, config: TrainingConfig, modules: dict[str, nn.Module],
                 groups: list[dict], optimizer_of: Callable[[list[dict]], torch.optim.Optimizer]):  # fmt: skip
        _fill(accelerator, config, next(iter(modules.values())))
        self.by_name, self.defaults, self.is_main = {}, {"lr": config.learning_rate}, accelerator.is_main_process
        for (name, module), group in zip(modules.items(), groups, strict=True):
            accelerator.deepspeed_engine_wrapped = None  # it knows one engine, and warns of a second
            self.by_name[name], _ = accelerator.prepare(module, optimizer_of([group]))
            _engines[module] = ref(self.by_name[name])
        self.engines = list(self.by_name.values())

    @property
    def param_groups(self) -> list[dict]:
        return [group for engine in self.engines for group in engine.optimizer.param_groups]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Gradients of a micro-batch; after the `last` one of a step they are whole."""
        for engine in self.engines:
            engine.set_gradient_accumulation_boundary(last)
        self.engines[0].backward(loss, scale_wrt_gas=False)  # the others see it pass through their outputs

    def norm(self, name: str) -> float:
        """The norm of a model's gradients, which its engine clips as it steps; infinite where one is not finite."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        optimizer = self.by_name[name].optimizer
        if hasattr(optimizer, "scaled_global_norm"):
            return float(optimizer.scaled_global_norm())
        return float(combine_grad_norm_groups(optimizer._get_norm_groups()))

    def step(self, closure=None) -> None:
        for engine in self.engines:
            engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: engines do so as they step."""

    def weights(self, name: str) -> dict[str, Tensor]:
        """The trained weights of a model by name, fp32 and whole, on the main process; all of them ask together."""
        from deepspeed.utils import safe_get_full_fp32_param

        found = {}
        for key, p in _trained(self.by_name[name]):
            whole = safe_get_full_fp32_param(p)
            if self.is_main:  # the others need no room for what they do not write
                found[key] = whole.cpu()
        return found

    def load_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave."""
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        self.by_name[name].empty_partition_cache()
        for key, p in _trained(self.by_name[name]):
            whole = weights[key].to(p.device, torch.float32)
            with GatheredParameters([p], modifier_rank=0), torch.no_grad():  # the copy that computes
                p.copy_(whole)
            if hasattr(p, "ds_id"):  # and the one that the optimiser moves
                safe_set_local_fp32_param(p, _shard(p, whole))
            else:
                safe_set_full_fp32_param(p, whole)

    def state_dict(self) -> dict:
        """Moments and steps of all weights, whole, on the main process; all of them ask together."""
        from deepspeed.utils import safe_get_full_optimizer_state

        state, groups, first = {}, [], 0
        for engine in self.engines:
            weights, moments = [p for _, p in _trained(engine)], engine.optimizer.optimizer.state
            step = next((float(state["step"]) for state in moments.values() if "step" in state), None)
            for i, p in enumerate(weights if step is not None else [], start=first):
                whole = {key: safe_get_full_optimizer_state(p, key) for key in ("exp_avg", "exp_avg_sq")}
                if self.is_main:
                    state[i] = {"step": torch.tensor(step)} | {key: tensor.cpu() for key, tensor in whole.items()}
            (group,) = engine.optimizer.param_groups
            kept = {key: value for key, value in group.items() if key != "params"}
            groups.append(kept | {"params": list(range(first, first + len(weights)))})
            first += len(weights)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict) -> None:
        """Put back what `state_dict` gave, or what `torch.optim.AdamW` did for the same modules."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        first = 0
        for engine, saved in zip(self.engines, state_dict["param_groups"], strict=True):
            weights, states = [p for _, p in _trained(engine)], state_dict["state"]
            (group,) = engine.optimizer.param_groups
            group.update({key: value for key, value in saved.items() if key not in ("params", "fused", "foreach")})
            if first in states:
                _begin_moments(engine.optimizer, float(states[first]["step"]))
            for i, p in enumerate(weights, start=first):
                for key in ("exp_avg", "exp_avg_sq") if i in states else ():
                    whole = states[i][key].to(p.device, torch.float32)
                    if hasattr(p, "ds_id"):
                        safe_set_local_optimizer_state(p, _shard(p, whole), key)
                    else:
                        safe_set_full_optimizer_state(p, whole, key)
            first += len(weights)


def join_on_cpus(**how) -> None:
    """Bring the processes of a launcher together where there are no GPUs, whatever kind it was told to start.

    Accelerate would leave each of them alone, which would then train a model of its own.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or torch.accelerator.is_available():
        return
    if PartialState._shared_state and PartialState().backend is None:
        PartialState._reset_state()  # somebody asked before, and was told that it is alone
    state = PartialState(cpu=True, **how)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        # gloo is quick enough, and a run killed while DeepSpeed compiles its own way leaves a lock that stops the next
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        state.distributed_type = DistributedType.DEEPSPEED


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the run was started with DeepSpeed.

    Raises:
        ValueError: if it was started with FSDP, whose shards nothing here puts together.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError("FSDP's shards are not gathered for sampling and checkpoints; shard by ZeRO-3 (zero3.yaml)")
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def weight_here(parameter: Tensor) -> Tensor:
    """What this process holds of a weight: all of it, or its shard."""
    return getattr(parameter, "ds_tensor", parameter).detach()


def frozen(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """A model that only scores, on the run's device; its weights in shards too where those of the policy are."""
    plugin = accelerator.state.deepspeed_plugin if is_sharded(accelerator) else None
    if plugin is None or plugin.zero_stage != 3 or hasattr(model, "optimizer"):  # an engine, of a run before this one
        return model.to(accelerator.device)
    import deepspeed

    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, **_buckets(model)} | _offload(plugin.deepspeed_config),
        "bf16": plugin.deepspeed_config.get("bf16", {"enabled": False}),
    }
    engine, *_ = deepspeed.initialize(model=model, config=settings)
    _engines[model] = ref(engine)
    model.eval()
    return engine


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All weights of a model on every process, which may then run it as often as it likes, whatever the others do.

    All processes enter and leave together; without this each pass would wait for the same pass of all others.
    """
    engine = _engine_of(model)
    if engine is None:
        yield
        return
    from deepspeed.runtime.zero.stage3 import unwrap_model_for_generation

    engine.empty_partition_cache()  # what was fetched in advance for a pass that did not come
    hooks = getattr(engine.optimizer, "parameter_offload", engine.optimizer)
    at_start = hooks.module._forward_pre_hooks[hooks.fwd_pre_hook.id]  # compares notes with the others at each pass
    hooks.fwd_pre_hook.remove()
    with unwrap_model_for_generation(engine):
        yield
    hooks.fwd_pre_hook = hooks.module.register_forward_pre_hook(at_start, prepend=True)


@contextmanager
def whole_on_main(model: nn.Module, is_main: bool) -> Iterator[None]:
    """All weights of a model in the main process's memory, to be saved; all processes enter and leave together."""
    engine = _engine_of(model)
    if engine is None:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    engine.empty_partition_cache()
    shards = []
    for p in model.parameters():
        with GatheredParameters([p]):  # one at a time, so that no device needs room for all
            full = p.detach().cpu().clone() if is_main else None
        shards.append((p, p.data))
        if is_main:
            p.data = full
    try:
        yield
    finally:
        for p, shard in shards:
            p.data = shard


def _engine_of(model: nn.Module):
    """The engine that holds a model's weights in shards, if one does."""
    inner = getattr(model, "module", model)
    engine = _engines[inner]() if inner in _engines else None
    return engine if engine is not None and engine.zero_optimization_partition_weights() else None


def _trained(engine) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]


def _shard(parameter: nn.Parameter, whole: Tensor) -> Tensor:
    """This process's part of a weight; the last parts are filled up with zeros."""
    size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()
    flat = whole.flatten()
    return nn.functional.pad(flat, (0, size * torch.distributed.get_world_size() - len(flat)))[size * rank :][:size]


def _begin_moments(optimizer, step: float) -> None:
    """Room for moments as there is after a step, to be filled; DeepSpeed has none before the first."""
    flat = getattr(optimizer, "fp32_partitioned_groups_flat", None) or optimizer.single_partition_of_fp32_groups
    for shard in flat:
        steps = torch.tensor(step, dtype=torch.float32, device=shard.device)
        moments = {key: torch.zeros_like(shard) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.optimizer.state[shard] = {"step": steps} | moments
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._lazy_init_hp_params_optimizer_state()


def _fill(accelerator: Accelerator, config: TrainingConfig, model: nn.Module) -> None:
    """Settle what the launcher's configuration leaves open."""
    if config.optimizer != "adamw":
        raise ValueError(f"DeepSpeed shards the moments of AdamW, not those of {config.optimizer!r}; set it to 'adamw'")
    settings = accelerator.state.deepspeed_plugin.deepspeed_config
    if settings["zero_optimization"]["stage"] not in (2, 3):
        raise ValueError(f"ZeRO's stage is 2 or 3 here, not {settings['zero_optimization']['stage']}; for 0 use DDP")
    rows = math.ceil(config.batch_size / (config.accumulation * accelerator.num_processes))
    settings |= {
        "train_micro_batch_size_per_gpu": rows,  # it counts samples by this, and nothing else
        "gradient_accumulation_steps": 1,  # the loop scales its losses and says when a step is full
        "train_batch_size": rows * accelerator.num_processes,
        "gradient_clipping": config.max_grad_norm if math.isfinite(config.max_grad_norm) else 0.0,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW runs on a CPU as well, and gives the same numbers
    }
    for name, value in _buckets(model).items():
        if settings["zero_optimization"].get(name, "auto") == "auto":
            settings["zero_optimization"][name] = value
    accelerator.gradient_accumulation_steps = 1
    unset_hf_deepspeed_config()  # or transformers would make every later model in shards that no engine holds


def _buckets(model: nn.Module) -> dict[str, int]:
    """Numbers moved at once: those of a layer's matrix; weights much smaller than that stay whole everywhere."""
    width = model.config.get_text_config().hidden_size
    return {
        "reduce_bucket_size": width * width,
        "stage3_prefetch_bucket_size": int(0.9 * width * width),
        "stage3_param_persistence_threshold": 10 * width,
    }


def _offload(settings: dict) -> dict:
    """Where the launcher wants weights to lie that are not at work."""
    device = settings["zero_optimization"].get("offload_param", {}).get("device", "none")
    return {} if device == "none" else {"offload_param": {"device": device}}
