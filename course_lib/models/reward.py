"""Scalar rewards from a sequence-classification model."""

from __future__ import annotations

from torch import Tensor

from course_lib.logprobs import position_ids


def sequence_rewards(model, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The reward head's output at each row's last real token.

        r(x, y) = w . hidden(x, y)[last]

    Args:
        model: a decoder of transformers for sequence classification with one label, whose head is `score`
            (Llama, Qwen, Mistral, Gemma, GPT-2 and others), not wrapped.
        input_ids: (B, T), padded on either side.
        attention_mask: (B, T).

    Returns:
        Tensor (B,), fp32. The last token is found from the mask, so pad may equal EOS.

    Raises:
        ValueError: if the model has no such head.
    """
    if not hasattr(model, "score"):
        raise ValueError(f"{type(model).__name__} has no `score` head; load it with course_lib.load_reward_model")
    hidden = model.base_model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids(attention_mask)
    ).last_hidden_state
    columns = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)
    last = hidden[range(len(columns)), columns]
    return model.score(last).squeeze(-1).float()
