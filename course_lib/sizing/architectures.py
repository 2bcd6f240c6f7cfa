"""Known models by name, and others by their config: a transformers config, or a checkpoint's folder."""

from __future__ import annotations

from course_lib.sizing.configs import from_config
from course_lib.sizing.shapes import Architecture


def _table(*rows: tuple) -> dict[str, Architecture]:
    return {name: Architecture(name, *numbers, **options) for name, numbers, options in rows}


GPT_2 = {"family": "gpt2", "tied": True, "positions": 1024, "qkv_bias": True, "out_bias": True, "mlp_bias": True}
GEMMA_2 = {"family": "gemma2", "tied": True, "score_cap": True, "logit_cap": True, "window": 4096}
GEMMA_3 = {"family": "gemma3", "tied": True, "qk_norm": True}
PHI_3 = {"family": "phi3"}
MIXTRAL = {"family": "mixtral"}
QWEN_3_MOE = {"family": "qwen3-moe", "qk_norm": True}
GPT_OSS = {"family": "gpt-oss", "qkv_bias": True, "out_bias": True, "window": 128}
# name: vocabulary, hidden size, layers, heads, key-value heads, size of a head, intermediate size
ARCHITECTURES = _table(
    ("llama-2-7b", (32000, 4096, 32, 32, 32, 128, 11008), {}),
    ("llama-3-8b", (128256, 4096, 32, 32, 8, 128, 14336), {}),
    ("llama-3-70b", (128256, 8192, 80, 64, 8, 128, 28672), {}),
    ("llama-3.2-1b", (128256, 2048, 16, 32, 8, 64, 8192), {"tied": True}),
    ("llama-3.2-3b", (128256, 3072, 28, 24, 8, 128, 8192), {"tied": True}),
    ("qwen2.5-0.5b", (151936, 896, 24, 14, 2, 64, 4864), {"tied": True, "qkv_bias": True}),
    ("qwen2.5-1.5b", (151936, 1536, 28, 12, 2, 128, 8960), {"tied": True, "qkv_bias": True}),
    ("qwen2.5-7b", (152064, 3584, 28, 28, 4, 128, 18944), {"qkv_bias": True}),
    ("qwen3-0.6b", (151936, 1024, 28, 16, 8, 128, 3072), {"tied": True, "qk_norm": True}),
    ("qwen3-8b", (151936, 4096, 36, 32, 8, 128, 12288), {"qk_norm": True}),
    ("mistral-7b", (32000, 4096, 32, 32, 8, 128, 14336), {}),
    ("gemma-2b", (256000, 2048, 18, 8, 1, 256, 16384), {"tied": True, "family": "gemma"}),
    ("gemma-7b", (256000, 3072, 28, 16, 16, 256, 24576), {"tied": True, "family": "gemma"}),
    ("gemma-2-2b", (256000, 2304, 26, 8, 4, 256, 9216), GEMMA_2 | {"sliding_layers": 13}),
    ("gemma-2-9b", (256000, 3584, 42, 16, 8, 256, 14336), GEMMA_2 | {"sliding_layers": 21}),
    ("gemma-2-27b", (256000, 4608, 46, 32, 16, 128, 36864), GEMMA_2 | {"sliding_layers": 23}),
    ("gemma-3-1b", (262144, 1152, 26, 4, 1, 256, 6912), GEMMA_3 | {"window": 512, "sliding_layers": 22}),
    ("gemma-3-4b", (262208, 2560, 34, 8, 4, 256, 10240), GEMMA_3 | {"window": 1024, "sliding_layers": 29}),
    ("gemma-3-12b", (262208, 3840, 48, 16, 8, 256, 15360), GEMMA_3 | {"window": 1024, "sliding_layers": 40}),
    ("gemma-3-27b", (262208, 5376, 62, 32, 16, 128, 21504), GEMMA_3 | {"window": 1024, "sliding_layers": 52}),
    ("phi-3-mini", (32064, 3072, 32, 32, 32, 96, 8192), PHI_3 | {"window": 2047, "sliding_layers": 32}),
    ("phi-3-medium", (32064, 5120, 40, 40, 10, 128, 17920), PHI_3 | {"window": 2047, "sliding_layers": 40}),
    ("phi-4", (100352, 5120, 40, 40, 10, 128, 17920), PHI_3),
    ("gpt2", (50257, 768, 12, 12, 12, 64, 3072), GPT_2),
    ("gpt2-xl", (50257, 1600, 48, 25, 25, 64, 6400), GPT_2),
    ("mixtral-8x7b", (32000, 4096, 32, 32, 8, 128, 14336),
     MIXTRAL | {"experts": 8, "experts_per_token": 2, "expert_size": 14336}),
    ("qwen3-30b-a3b", (151936, 2048, 48, 32, 4, 128, 6144),
     QWEN_3_MOE | {"experts": 128, "experts_per_token": 8, "expert_size": 768}),
    ("qwen3-235b-a22b", (151936, 4096, 94, 64, 4, 128, 12288),
     QWEN_3_MOE | {"experts": 128, "experts_per_token": 8, "expert_size": 1536}),
    ("gpt-oss-20b", (201088, 2880, 24, 64, 8, 64, 2880),
     GPT_OSS | {"experts": 32, "experts_per_token": 4, "expert_size": 2880, "sliding_layers": 12}),
    ("gpt-oss-120b", (201088, 2880, 36, 64, 8, 64, 2880),
     GPT_OSS | {"experts": 128, "experts_per_token": 4, "expert_size": 2880, "sliding_layers": 18}),
)  # fmt: skip


def architecture_of(model) -> Architecture:
    """The architecture of a name in `ARCHITECTURES`, a transformers config, a local folder, or a hub name.

    Raises:
        ValueError: if it is none of them, of a family that is not counted here, or its sizes do not fit together.
    """
    if isinstance(model, Architecture):
        return model
    if isinstance(model, str):
        return ARCHITECTURES.get(model.lower()) or from_config(_config_named(model))
    if hasattr(model, "get_text_config"):
        return from_config(model)
    raise ValueError(
        f"{model!r} is no model: give a name ({', '.join(ARCHITECTURES)}), a transformers config, a folder with a "
        "checkpoint, or a number of parameters"
    )


def _config_named(name: str):
    from transformers import AutoConfig  # seconds to import, and no other kind of model needs it

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no model {name!r}: the table has {', '.join(ARCHITECTURES)}, there is no such folder with a config, and "
            f"the hub gave: {str(error).splitlines()[0]}"
        ) from error
