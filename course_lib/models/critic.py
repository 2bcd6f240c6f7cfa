"""Critics: a value for each token of a text, by a model of its own or by a head on the policy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from course_lib.logprobs import Packed, device_of, packed_inputs, spread, takes, unwrapped
from course_lib.logprobs.forward import with_positions


class Critic(nn.Module):
    """A body that reads the text, and a head that gives one number for each token.

    The value of a state is the head's output at the *last token that was read*: `forward` puts it in the column of the
    token that comes next, so that values stand beside the log-probabilities of the same tokens.

    Args:
        body: a transformer without its language-modelling head.
        width: of its hidden states.
    """

    def __init__(self, body: nn.Module, width: int):
        super().__init__()
        weight = next(body.parameters())
        self.body = body
        self.head = nn.Linear(width, 1, device=weight.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor | Packed, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) in reward units, fp32; column t holds the value before token t. A packed batch comes alone."""
        if isinstance(input_ids, Packed):  # through here too: the wrappers of distributed training see this call alone
            return self.of_packed(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask} | with_positions(self.body, attention_mask)
        return before_each_token(self.value(self._hidden(inputs)))

    def of_packed(self, packed: Packed) -> Tensor:
        """The same for a packed batch: (B, T), and 0 where no token is scored."""
        return spread(packed, self.value, self._hidden(packed_inputs(packed.rows, self.body)))

    def value(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1).float()

    def _hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        cache = {"use_cache": False} if takes(self.body, "use_cache") else {}
        return self.body(**inputs, **cache).last_hidden_state


class ValueHead(nn.Linear):
    """A critic that is one layer on the policy's own final hidden states: no second body is held or run.

    Args:
        width: of the hidden states.
    """

    def __init__(self, width: int):
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) states to (N,) values in reward units, fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.to(self.weight.dtype)).squeeze(-1).float()


def value_head_of(model) -> ValueHead:
    """A value head for a causal language model, which says 0 to everything."""
    return ValueHead(unwrapped(model).config.get_text_config().hidden_size).to(device_of(model))


def before_each_token(values: Tensor) -> Tensor:
    """Values at each token moved to the token after it, (B, T); the first column is 0, nothing stands before it."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def critic_of(model) -> Critic:
    """A critic that begins with a copy of a model's body, and says 0 to everything.

    Of a policy with adapters the adapters are trained, and the weights under them stay as they are.

    Args:
        model: a causal language model or a reward model of transformers.
    """
    inner = unwrapped(model)
    body = copy.deepcopy(inner.base_model)
    if not any(p.requires_grad for p in body.parameters()):  # of a reward model, say, that only scores
        body.requires_grad_(True)
    return Critic(body, inner.config.get_text_config().hidden_size).to(device_of(model))
