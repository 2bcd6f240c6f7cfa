"""How a language model is built, as numbers: enough to count every weight and size every activation.

Numbers come from a table, a transformers config, or a checkpoint's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama family, or GPT-2. Sizes in elements; a layer is attention and MLP, each behind a norm."""

    name: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    tied: bool = False  # the output layer is the embedding
    qkv_bias: bool = False
    out_bias: bool = False  # behind attention
    mlp_bias: bool = False
    qk_norm: bool = False
    norm: str = "rms"  # or "gemma" (its multiplication in fp32), "layer" (GPT-2)
    positions: int = 0  # learned position embeddings; 0 means rotary ones
    experts: int = 0
    experts_per_token: int = 1

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_size

    @property
    def is_gpt2(self) -> bool:
        return self.norm == "layer"

    def parameters(self, head: str = "lm") -> int:
        """How many weights it has with the head "lm" (vocabulary), "score" (one number, no bias) or "none"."""
        return sum(w.elements * w.count for w in self.weights(head))

    def weights(self, head: str = "lm") -> list[Weight]:
        """Every weight tensor, those of equal shape counted together."""
        outer = [Weight("embedding", (self.vocab_size, self.hidden_size))]
        if self.positions:
            outer.append(Weight("positions", (self.positions, self.hidden_size)))
        outer += [Weight("norm", (self.hidden_size,))] * (2 if self.is_gpt2 else 1)
        if head == "lm" and not self.tied:
            outer.append(Weight("head", (self.vocab_size, self.hidden_size)))
        if head == "score":
            outer.append(Weight("score", (1, self.hidden_size)))
        return outer + [Weight(w.name, w.shape, self.layers, w.linear) for w in self.layer_weights()]

    def layer_weights(self) -> list[Weight]:
        """The weights of one layer."""
        hidden, inner = self.hidden_size, self.intermediate_size
        norms = [Weight("norm", (hidden,))] * (4 if self.is_gpt2 else 2)
        if self.is_gpt2:
            shapes = [(3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)]
            return norms + [w for s in shapes for w in (Weight("linear", s, linear=True), Weight("bias", s[:1]))]
        attention = [(self.queries, hidden), (self.keys, hidden), (self.keys, hidden), (hidden, self.queries)]
        found = norms + [Weight("linear", shape, linear=True) for shape in attention]
        if self.qkv_bias:
            found += [Weight("bias", shape[:1]) for shape in attention[:3]]
        if self.out_bias:
            found.append(Weight("bias", (hidden,)))
        if self.qk_norm:
            found += [Weight("norm", (self.head_size,))] * 2
        if self.experts:  # each kind of expert matrix is one tensor, which neither LoRA nor NF4 takes for a layer
            shapes = [(self.experts, hidden), (self.experts, 2 * inner, hidden), (self.experts, hidden, inner)]
            return found + [Weight("experts", shape) for shape in shapes]
        mlp = ((inner, hidden), (inner, hidden), (hidden, inner))
        if self.mlp_bias:
            found += [Weight("bias", shape[:1]) for shape in mlp]
        return found + [Weight("linear", shape, linear=True) for shape in mlp]


@dataclass(frozen=True)
class Weight:
    """`count` tensors of one shape. `linear` marks those that LoRA adapts and NF4 quantises."""

    name: str
    shape: tuple[int, ...]
    count: int = 1
    linear: bool = False

    @property
    def elements(self) -> int:
        """Of one tensor."""
        return prod(self.shape)


def _table(*rows: tuple) -> dict[str, Architecture]:
    return {name: Architecture(name, *numbers, **options) for name, numbers, options in rows}


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
    ("gemma-2b", (256000, 2048, 18, 8, 1, 256, 16384), {"tied": True, "norm": "gemma"}),
    ("gemma-7b", (256000, 3072, 28, 16, 16, 256, 24576), {"tied": True, "norm": "gemma"}),
    ("gpt2", (50257, 768, 12, 12, 12, 64, 3072), {"tied": True, "norm": "layer", "positions": 1024}),
    ("gpt2-xl", (50257, 1600, 48, 25, 25, 64, 6400), {"tied": True, "norm": "layer", "positions": 1024}),
    ("mixtral-8x7b", (32000, 4096, 32, 32, 8, 128, 14336), {"experts": 8, "experts_per_token": 2}),
)
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2", "mixtral")


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


def from_config(config) -> Architecture:
    """The numbers of a transformers config.

    Raises:
        ValueError: for a family outside `MODEL_TYPES`, or heads that do not divide.
    """
    kind = config.model_type
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"models of type {kind!r} are not counted here, only {', '.join(MODEL_TYPES)}; give its number of "
            "parameters instead (its states alone)"
        )
    hidden, heads = config.hidden_size, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or hidden // heads
    if heads % kv_heads or (getattr(config, "head_dim", None) is None and hidden % heads):
        raise ValueError(
            f"the heads do not divide: hidden size {hidden}, {heads} heads, {kv_heads} key-value heads; the heads "
            "must be a multiple of the key-value heads, and divide the hidden size"
        )
    gpt2 = kind == "gpt2"
    sizes = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
    if min(sizes.values()) < 1:
        raise ValueError(f"a model has at least one of each; got {sizes}")
    attention_bias = kind in ("llama", "qwen3", "gemma") and bool(getattr(config, "attention_bias", False))
    return Architecture(
        getattr(config, "name_or_path", "") or kind,
        config.vocab_size,
        hidden,
        config.num_hidden_layers,
        heads,
        kv_heads,
        head_size,
        (config.n_inner or 4 * hidden) if gpt2 else config.intermediate_size,
        tied=bool(config.tie_word_embeddings),
        qkv_bias=kind == "qwen2" or attention_bias,
        out_bias=attention_bias,
        mlp_bias=kind == "llama" and bool(getattr(config, "mlp_bias", False)),
        qk_norm=kind == "qwen3",
        norm="layer" if gpt2 else "gemma" if kind == "gemma" else "rms",
        positions=config.n_positions if gpt2 else 0,
        experts=getattr(config, "num_local_experts", 0),
        experts_per_token=getattr(config, "num_experts_per_tok", 1),
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
