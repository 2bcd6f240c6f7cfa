"""Rollouts drawn by vLLM, an engine of its own that gets the policy's weights before each of them.

Written for vLLM 0.22 and later. Nothing of it is imported before a `VLLMRollouts` is made.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from course_lib.logprobs import unwrapped
from course_lib.models.adapters import quantization_of
from course_lib.models.saving import unwrapped_adapters
from course_lib.rollouts.drawing import Decoding, row_seed
from course_lib.rollouts.generation import Completion, refuse_overflow, refuse_settings
from course_lib.rollouts.rollout import Rollout, as_asked, as_rollout
from course_lib.rollouts.stepping import stop_ids

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has room for
LEAST_TEMPERATURE = 0.01  # vLLM raises what lies below to this, and would draw from another distribution
OURS = ("model", "logprobs_mode", "enable_lora", "max_lora_rank", "max_loras")


class VLLMRollouts:
    """Draws rollouts with vLLM; called as `roll_out` is, it gives the same `Rollout`.

    The engine starts at the first call. Each call writes the policy's weights to `folder` and has the engine read them:
    LoRA adapters as a `LoRARequest`, all weights by vLLM's `reload_weights`, which forgets what it has cached of the
    old ones. Prompts go in as token ids, and token ids come out with the log-probabilities that they were drawn with
    (vLLM's `logprobs_mode="processed_logprobs"`: after temperature, top-k and top-p). Nothing is tokenised again.

    Each completion is a request of its own with a seed of its own, so it does not depend on its neighbours; but its
    random numbers are not those of `roll_out`. vLLM computes with other kernels than the trainer: in half precision the
    first ratio is 1 only as far as those agree. A policy with adapters must stand on the very weights that vLLM loads.

    Args:
        model_name_or_path: what the engine loads at its start: the policy's base, or the policy.
        folder: where weights are handed over, best in memory (such as /dev/shm); None: the temporary folder.
        **engine: further arguments of `vllm.LLM`, such as `gpu_memory_utilization=0.3` to leave room for training, or
            `tensor_parallel_size`. `dtype` is the policy's unless it is given.

    Raises:
        ImportError: if vLLM is not installed.
        ValueError: for engine arguments that are set here.
    """

    def __init__(self, model_name_or_path: str, *, folder: str | Path | None = None, **engine):
        _import("vllm")
        if taken := [name for name in OURS if name in engine]:
            raise ValueError(f"{', '.join(taken)} is set by VLLMRollouts; leave it out")
        self.source, self.folder, self.engine = model_name_or_path, folder, engine
        self.llm = None
        self.pushed = 0  # how often weights were handed over: each time under a new name, so that no old ones are used

    def __call__(
        self,
        model,
        tokenizer,
        prompts: Sequence,
        *,
        n: int = 1,
        max_new_tokens: int = 48,
        decoding: Decoding | None = None,
        seed: int = 0,
        first: int = 0,
        batch_size: int = 256,
        stop_strings: Sequence[str] = (),
        encoded: Sequence[list[int]] | None = None,
        progress: bool = False,
    ) -> Rollout:
        """Draw `n` completions of each prompt. Arguments and errors as in `roll_out`, and further:

        `batch_size` is not asked for: vLLM makes its own batches. `plain_logps` are NaN unless tokens are drawn from
        the model's own distribution, as vLLM gives one number for each token.

        Raises:
            ValueError: for a temperature below 0.01, several active adapters, weights in 4 bits that the engine would
                load wide, or a run in several processes.
            RuntimeError: if vLLM broke a completion off.
        """
        refuse_settings(n=n, max_new_tokens=max_new_tokens, seed=seed)
        decoding, prompts, encoded = as_asked(prompts, tokenizer, decoding, encoded)
        if decoding.temperature < LEAST_TEMPERATURE:
            raise ValueError(f"vLLM draws at a temperature of at least {LEAST_TEMPERATURE}; got {decoding.temperature}")
        refuse_overflow(model, encoded, max_new_tokens)
        stops = sorted(stop_ids(model, tokenizer))
        requests = [{"prompt_token_ids": ids} for ids in encoded for _ in range(n)]
        settings = [
            _sampling(decoding, max_new_tokens, stops, stop_strings, row_seed(seed, n * first + i))
            for i in range(len(requests))
        ]
        with self._handed_over(model) as adapter:
            outputs = self.llm.generate(requests, settings, lora_request=adapter, use_tqdm=progress)
        found = [_completion(output.outputs[0], decoding) for output in outputs]
        return as_rollout(prompts, encoded, found, tokenizer, n, decoding, stop_strings)

    @contextmanager
    def _handed_over(self, model) -> Iterator:
        """The engine with the policy's weights: gives what it must be told with each request, or None."""
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            raise ValueError("vLLM rollouts are for a run in one process; start it without a launcher")
        model = unwrapped_adapters(model)
        if self.llm is None:
            self.llm = self._started(model)
        self.pushed += 1
        name = f"policy-{self.pushed}"
        with tempfile.TemporaryDirectory(prefix="rollouts-", dir=self.folder) as folder:
            if hasattr(model, "peft_config"):
                adapter = _only_adapter(model)
                model.save_pretrained(folder, selected_adapters=[adapter], save_embedding_layers=False)
                path = Path(folder) if adapter == "default" else Path(folder) / adapter
                yield _import("vllm.lora.request").LoRARequest(name, self.pushed, str(path))
            else:
                model.save_pretrained(folder)
                self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
                self.llm.reset_prefix_cache()
                yield None

    def _started(self, model):
        """The engine, with room for the policy's adapters if it has any."""
        if quantization_of(unwrapped(model)) and "quantization" not in self.engine:
            raise ValueError(
                "the policy's weights are in 4 or 8 bits, and vLLM would load wide ones and speak for another policy; "
                "pass quantization='bitsandbytes' if it can load these"
            )
        lora = {}
        if hasattr(model, "peft_config"):
            config = model.peft_config[_only_adapter(model)]
            rank = max([config.r, *(config.rank_pattern or {}).values()])
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(r for r in LORA_RANKS if r >= rank)}
        dtype = {"dtype": str(unwrapped(model).dtype).removeprefix("torch.")}
        return _import("vllm").LLM(
            model=self.source, logprobs_mode="processed_logprobs", **(dtype | self.engine), **lora
        )


def _import(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"drawing rollouts with vLLM needs vLLM, which is not installed ({error}): pip install 'course-lib[vllm]', "
            "on a machine with a GPU; without it leave rollouts to `roll_out`"
        ) from error


def _only_adapter(model) -> str:
    if len(model.active_adapters) != 1:
        raise ValueError(f"vLLM draws with one adapter; active are {', '.join(model.active_adapters) or 'none'}")
    return model.active_adapters[0]


def _sampling(decoding: Decoding, max_new_tokens: int, stops: list[int], stop_strings: Sequence[str], seed: int):
    """vLLM's settings for one completion; only what is named here ends it, as in `roll_out`."""
    texts = {"stop": list(stop_strings), "skip_special_tokens": False} if stop_strings else {"detokenize": False}
    return _import("vllm").SamplingParams(
        n=1, temperature=decoding.temperature, top_k=decoding.top_k or 0, top_p=decoding.top_p, seed=seed,
        max_tokens=max_new_tokens, logprobs=0, ignore_eos=True, stop_token_ids=stops, **texts,
    )  # fmt: skip


def _completion(output, decoding: Decoding) -> Completion:
    """A completion from vLLM's, whose log-probabilities are a dict for each token."""
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM broke a completion off (finish_reason={output.finish_reason!r}); see its log")
    ids = list(output.token_ids)
    logps = [of_token[token].logprob for token, of_token in zip(ids, output.logprobs, strict=True)]
    plain_logps = logps if decoding.plain else [float("nan")] * len(ids)
    return Completion(ids, logps, list(plain_logps), ended=output.finish_reason == "stop")
