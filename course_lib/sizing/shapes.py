"""How a language model is built, as numbers: enough to count every weight and size every activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class Architecture:
    """A decoder: layers of attention and MLP, each behind a norm. Sizes in elements, but for counts of things.

    `family` tells whose code computes it: "llama" (Mistral's and Qwen's too), "gemma", "gemma2", "gemma3", "phi3",
    "gpt2", "mixtral", "qwen3-moe" or "gpt-oss".
    """

    name: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    family: str = "llama"
    tied: bool = False  # the output layer is the embedding
    qkv_bias: bool = False
    out_bias: bool = False  # behind attention
    mlp_bias: bool = False
    qk_norm: bool = False
    rotary_size: int | None = None  # of a head, as far as positions turn it; None: all of it
    score_cap: bool = False  # attention scores go through a tanh
    logit_cap: bool = False
    window: int = 0  # tokens that a sliding layer sees; 0: no layer slides
    sliding_layers: int = 0
    positions: int = 0  # learned position embeddings; 0 means rotary ones
    experts: int = 0
    experts_per_token: int = 1
    expert_size: int = 0  # an expert's intermediate size
    dense_layers: tuple[int, ...] = ()  # of a mixture: layers with a plain MLP

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
        return self.family == "gpt2"

    @property
    def is_mixture(self) -> bool:
        """Whether some layers have experts; those without have adapters on attention alone as well."""
        return self.family in ("mixtral", "qwen3-moe", "gpt-oss")

    @property
    def merged(self) -> bool:
        """Whether one matrix gives queries, keys and values."""
        return self.family in ("phi3", "gpt2")

    @property
    def post_norms(self) -> bool:
        """Whether norms stand behind attention and MLP as well."""
        return self.family in ("gemma2", "gemma3")

    @property
    def kinds_of_attention(self) -> int:
        """Sliding and full layers have a mask each."""
        return 2 if 0 < self.sliding_layers < self.layers else 1

    def layer(self, index: int) -> Architecture:
        """An architecture whose layers are all like this one's layer `index`."""
        return self._without_experts if index in self.dense_layers else self

    @property
    def _without_experts(self) -> Architecture:
        return replace(self, experts=0, dense_layers=())

    def cached_tokens(self, length: int) -> float:
        """Tokens whose keys and values a layer holds after `length` of them, on average over the layers."""
        seen = min(length, self.window) if self.window else length
        return length + (seen - length) * self.sliding_layers / self.layers

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
        return outer + self.weights_of_layers()

    def weights_of_layers(self) -> list[Weight]:
        """The weights of all layers."""
        dense = len(self.dense_layers)
        found = [replace(w, count=self.layers - dense) for w in self.layer_weights()]
        return found + [replace(w, count=dense) for w in self._without_experts.layer_weights() if dense]

    def layer_weights(self) -> list[Weight]:
        """The weights of one layer, with experts where the model has them."""
        return [*self._attention_weights(), *self._norms(), *self._mlp_weights()]

    def _norms(self) -> list[Weight]:
        return [Weight("norm", (self.hidden_size,))] * (4 if self.is_gpt2 or self.post_norms else 2)

    def _attention_weights(self) -> Iterator[Weight]:
        hidden, queries, keys = self.hidden_size, self.queries, self.keys
        for width in [queries + 2 * keys] if self.merged else [queries, keys, keys]:
            yield Weight("linear", (width, hidden), linear=True, adapted=True)
            if self.qkv_bias:
                yield Weight("bias", (width,))
        yield Weight("linear", (hidden, queries), linear=True, adapted=True)
        if self.out_bias:
            yield Weight("bias", (hidden,))
        if self.qk_norm:
            yield from [Weight("norm", (self.head_size,))] * 2
        if self.family == "gpt-oss":
            yield Weight("sinks", (self.heads,))

    def _mlp_weights(self) -> Iterator[Weight]:
        hidden, inner = self.hidden_size, self.intermediate_size
        if self.experts:  # each kind of expert matrix is one tensor, which neither LoRA nor bitsandbytes takes
            wide, experts = 2 * self.expert_size, self.experts
            shapes = [(experts, hidden), (experts, wide, hidden), (experts, hidden, self.expert_size)]
            yield from (Weight("experts", shape) for shape in shapes)
            if self.family == "gpt-oss":
                yield from (Weight("bias", shape) for shape in ((experts,), (experts, wide), (experts, hidden)))
            return
        widths = [inner] if self.is_gpt2 else [2 * inner] if self.family == "phi3" else [inner, inner]
        for shape in [*((width, hidden) for width in widths), (hidden, inner)]:
            yield Weight("linear", shape, linear=True, adapted=not self.is_mixture)
            if self.mlp_bias:
                yield Weight("bias", shape[:1])


@dataclass(frozen=True)
class Weight:
    """`count` tensors of one shape. `linear` layers are what bitsandbytes quantises, `adapted` ones what LoRA does."""

    name: str
    shape: tuple[int, ...]
    count: int = 1
    linear: bool = False
    adapted: bool = False

    @property
    def elements(self) -> int:
        """Of one tensor."""
        return prod(self.shape)
