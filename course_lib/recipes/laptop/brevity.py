"""A reward that a program can give, as an example of one's own: `reward.NAME.function: FILE.py:NAME`."""

import torch


def brevity(prompts, completions):
    """1 for a word, less for every further one, and -1 for nothing at all: short, and still an answer.

    Args:
        prompts: B strings or dialogues.
        completions: B strings, or dialogues with one message.

    Returns:
        (B,) rewards, 1 - (words - 1) / 40 with -1 as the least.
    """
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    words = [len(text.split()) for text in texts]
    return torch.tensor([max(-1.0, 1 - (n - 1) / 40) if n else -1.0 for n in words])
