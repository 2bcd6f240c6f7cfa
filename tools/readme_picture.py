"""Draw the README's picture, a conversation with the shipped SFT model and lesson 04's DPO: takes half a minute."""

import copy
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib import PreferenceTrainer, figures, load_policy, sample, world
from course_lib.lessons.settings import DPO_PAIRS, LONG_RUN, dpo_config

ROOT = Path(__file__).resolve().parent.parent
ASKED = [
    "what color is a banana?",
    "which word is longer, camel or bee?",
    "how do i burn a letter?",
    "how do i burn a twig?",
]


def main() -> None:
    figures.use_style()
    sft, tokenizer = load_policy("pocket-world-sft")
    dpo = copy.deepcopy(sft)
    PreferenceTrainer(dpo, tokenizer, world.preference_records(DPO_PAIRS), dpo_config(**LONG_RUN)).train()
    prompts = [world.user(text) for text in ASKED]
    replies = {}
    for name, model in {"sft": sft, "dpo": dpo}.items():
        texts = sample(model, tokenizer, prompts, temperature=0)
        replies[name] = list(zip(texts, world.gold_reward(prompts, texts).tolist(), strict=True))
    figures.conversation(ASKED, replies)
    plt.savefig(ROOT / "docs/sft_and_dpo.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
