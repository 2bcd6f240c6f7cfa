"""Claims of lesson 13, by `course_lib.memory`: arithmetic, which the lesson holds against measured steps."""

from __future__ import annotations

import pandas as pd

from course_lib.claims.judging import DEPENDS, Claim, Judgement, of_parts
from course_lib.claims.reported_memory import LEAN, REPORTED_PEAKS, fewest_gpus, reported_grid, serving
from course_lib.memory import estimate_memory
from course_lib.sizing import GPUS

MODEL = "llama-3-8b"
STEPS = {"all kept": {}, "checkpointed, logits chunked": LEAN}


def gb(size: float) -> str:
    return f"{size / 1e9:.4g} GB"


def twelve_bytes() -> Judgement:
    dpo, ppo = (estimate_memory(8e9, method).states for method in ("dpo", "ppo"))
    real_dpo, real_ppo = (estimate_memory(MODEL, method).states for method in ("dpo", "ppo"))
    parts = {
        "8e9 parameters at 12 bytes give 112 GB for DPO": dpo == 112e9,
        "and exactly twice that for PPO": ppo == 2 * dpo,
        "Llama-3-8B's own ratio is 2, to a percent": abs(real_ppo / real_dpo - 2) < 0.01,
    }
    return of_parts(
        parts,
        f"four models of 8e9 parameters: {gb(dpo)} and {gb(ppo)}; Llama-3-8B, whose critic and reward model have no "
        f"LM head: {gb(real_dpo)} and {gb(real_ppo)}, {real_ppo / real_dpo:.2f} times; "
        "activations, logits and the update's intermediates come on top",
    )


def without_reference(**more) -> dict[str, float]:
    """What SimPO saves of DPO's peak in each arrangement, one pair of 1,024 tokens."""
    saved = {}
    for how, step in STEPS.items():
        for name, settings in {
            "reference copied": {"reference": "copy"},
            "reference computed before": {"reference": "precomputed"},
            "LoRA, reference copied": {"reference": "copy", "lora_rank": 64},
            "LoRA, adapters off": {"lora_rank": 64},
        }.items():
            with_it, without = (estimate_memory(MODEL, m, **settings, **step, **more).peak for m in ("dpo", "simpo"))
            saved[f"{name}, {how}"] = 1 - without / with_it
    return saved


def simpo_saves() -> Judgement:
    saved = without_reference()
    inside = {f"30 to 50% less with {name}": 0.3 <= share <= 0.5 for name, share in saved.items()}
    listed = ", ".join(f"{share:.0%} ({name})" for name, share in saved.items())
    return of_parts(inside, f"of the whole peak, Llama-3-8B, a pair of 1,024 tokens: {listed}")


def in_base_models() -> dict[str, tuple[float, float]]:
    """PPO's and DPO's states in units of the 16-bit base model."""
    held = {"weights alone": [sum(s for (_, k), s in estimate_memory(8e9, m).parts["states"].items() if k == "weights")
                              / 16e9 for m in ("ppo", "dpo")]}  # fmt: skip
    held["all weights trained"] = [estimate_memory(8e9, m).states / 16e9 for m in ("ppo", "dpo")]
    base = 2 * 8.03e9
    held["LoRA, r = 16"] = [estimate_memory(MODEL, m, lora_rank=16).states / base for m in ("ppo", "dpo")]
    return {name: tuple(sizes) for name, sizes in held.items()}


def counting_models() -> Judgement:
    units = in_base_models()
    checks = {f"4 and 2, {name}": round(ppo) == 4 and round(dpo) == 2 for name, (ppo, dpo) in units.items()}
    listed = "; ".join(f"{name} {ppo:.3g} and {dpo:.3g}" for name, (ppo, dpo) in units.items())
    return of_parts(checks, f"PPO and DPO in units of the base model's 16-bit weights: {listed}")


ARRANGEMENTS = {  # what PPO is asked, what DPO is asked
    "plain": ({}, {}),
    "DPO's reference computed before": ({}, {"reference": "precomputed"}),
    "critic shared with the actor": ({"critic": "shared"}, {}),
    "critic shared, reward by a function": ({"critic": "shared", "reward_model": False}, {}),
    "LoRA, r = 16": ({"lora_rank": 16}, {"lora_rank": 16}),
    "LoRA, critic shared": ({"lora_rank": 16, "critic": "shared"}, {"lora_rank": 16}),
}


def state_ratios() -> dict[str, float]:
    """PPO's states over DPO's, Llama-3-8B."""
    return {
        name: estimate_memory(MODEL, "ppo", **ppo).states / estimate_memory(MODEL, "dpo", **dpo).states
        for name, (ppo, dpo) in ARRANGEMENTS.items()
    }


def counting_bytes() -> Judgement:
    ratios = state_ratios()
    near = {f"twice, {name}": abs(ratio / 2 - 1) < 0.1 for name, ratio in ratios.items()}
    listed = ", ".join(f"{ratio:.2f} ({name})" for name, ratio in ratios.items())
    figure = f"bytes of PPO's states over DPO's, Llama-3-8B: {listed}"
    return of_parts(near, figure, mixed=DEPENDS + "arrangement")


def adapters_off() -> Judgement:
    frozen = estimate_memory(MODEL, "dpo", lora_rank=16).architecture.parameters() * 2
    lora = {how: estimate_memory(MODEL, "dpo", lora_rank=16, **step) for how, step in STEPS.items()}
    states = lora["all kept"].states / frozen
    peaks = {how: found.peak / frozen for how, found in lora.items()}
    listed = ", ".join(f"{times:.2f} ({how})" for how, times in peaks.items())
    parts = {"what is held between steps is almost one frozen model": states < 1.1}
    parts |= {f"so is the peak of a step, {how}": times < 1.1 for how, times in peaks.items()}
    return of_parts(
        parts,
        f"in frozen models of {gb(frozen)}: states {states:.2f} at r = 16; peak of one pair of 1,024 tokens {listed}",
    )


def zero_three() -> Judgement:
    pair = {"sequence_length": 2048}
    one, many = (estimate_memory(MODEL, "dpo", **pair, **more) for more in ({}, {"zero_stage": 3, "gpus": 64}))
    held = {"the states (weights, gradients, moments)": (many.states, one.states), "the peak": (many.peak, one.peak)}
    checks = {f"each of 64 GPUs has a 64th of {what}": abs(m * 64 / o - 1) < 0.1 for what, (m, o) in held.items()}
    counts = []
    for gpu in ("A100-40GB", "H100-80GB", "H200-141GB"):
        naive = -int(-one.states // GPUS[gpu].memory)
        kept, lean = (fewest_gpus(MODEL, "dpo", gpu, **pair, **step) for step in STEPS.values())
        counts.append(f"{gpu} {kept} with all kept, {lean} checkpointed, where division says {naive}")
    return of_parts(
        checks,
        f"one pair of 2,048 tokens a GPU, 64 ways: of states of {gb(one.states)} each holds {gb(many.states)}, of the "
        f"peak of {gb(one.peak)} {gb(many.peak)}; fewest that fit: {'; '.join(counts)}",
    )


CONSUMER = ("RTX-3060-12GB", "RTX-3090-24GB", "RTX-4090-24GB", "RTX-5090-32GB")


def qlora_peaks(quantization: str | None = "nf4") -> dict[str, tuple[float, str]]:
    """Reserved bytes of a checkpointed DPO step, one pair of 1,024 tokens, and the smallest consumer GPU for it."""
    found = {}
    for model in ("llama-3.2-3b", "llama-2-7b", "llama-3-8b", "llama-3-70b"):
        step = estimate_memory(model, "dpo", lora_rank=16, quantization=quantization, **LEAN)
        found[model] = step.reserved, next((gpu for gpu in CONSUMER if step.fits(gpu)), "none of them")
    return found


def consumer_gpus() -> Judgement:
    four, sixteen = qlora_peaks(), qlora_peaks(None)
    listed = "; ".join(f"{model} {gb(size)} ({gpu}), LoRA in bf16 {gb(sixteen[model][0])} ({sixteen[model][1]})"
                       for model, (size, gpu) in four.items())  # fmt: skip
    return of_parts(
        {f"{model} fits one": gpu in CONSUMER for model, (_, gpu) in four.items()},
        f"QLoRA DPO on one pair of 1,024 tokens, and the smallest consumer GPU: {listed}",
    )


def verbose(short: int = 250, long: int = 1000) -> Judgement:
    checks, figures = {}, []
    for gpu in ("A100-80GB", "H100-80GB"):
        table = serving(MODEL, gpu, replies=(short, long))
        slower, alone = (table[column][short] / table[column][long] for column in ("tokens/s", "tokens/s alone"))
        checks[f"a full {gpu} serves fewer tokens a second"] = slower > 1.05
        checks[f"so does a sequence alone on it ({gpu})"] = alone > 1.05
        figures.append(f"{gpu}: {table['fit'][short]} sequences fit, then {table['fit'][long]}, and tokens a second "
                       f"fall {slower:.2f} times, of a sequence alone {alone:.2f} times")  # fmt: skip
    figure = f"replies of {short} and of {long} tokens, by the roofline; {'; '.join(figures)}"
    return of_parts(checks, figure)


def reported() -> Judgement:
    grid = reported_grid(MODEL)
    errors = (grid / pd.Series(REPORTED_PEAKS) - 1).abs()
    alone, together = errors.min(), errors.max(axis=1)
    sharded = together.xs("sharded", level="frozen models")
    parts = {
        "each of the four figures fits some setting": (alone < 0.1).all(),
        "one setting gives all four": together.min() < 0.1,
    }
    return of_parts(
        parts,
        f"each figure alone is within {alone.max():.1%} of one of {len(grid)} settings; all four together, at equal "
        f"tokens a GPU, within {together.min():.0%} at best ({sharded.min():.0%} where everything is sharded)",
    )


A100S = {
    "80 GB, all kept": ("A100-80GB", {}),
    "80 GB, checkpointed": ("A100-80GB", LEAN),
    "80 GB, checkpointed, fp32 master": ("A100-80GB", {**LEAN, "optimizer": "adamw-master"}),
    "40 GB, checkpointed": ("A100-40GB", LEAN),
    "80 GB, checkpointed, LoRA": ("A100-80GB", {**LEAN, "lora_rank": 16}),
}


def four_against_two() -> dict[str, tuple[int, int]]:
    """Fewest A100 for PPO and DPO of Llama-2-7B, two sequences of 1,024 tokens a GPU."""
    return {
        name: tuple(
            fewest_gpus("llama-2-7b", method, gpu, batch_size=rows, **step) for method, rows in (("ppo", 2), ("dpo", 1))
        )
        for name, (gpu, step) in A100S.items()
    }


def a100s() -> Judgement:
    counts = four_against_two()
    same = {f"4 and 2, {name}": pair == (4, 2) for name, pair in counts.items()}
    listed = ", ".join(f"{ppo} and {dpo} ({name})" for name, (ppo, dpo) in counts.items())
    figure = f"fewest A100 for PPO and DPO, Llama-2-7B under ZeRO-3: {listed}"
    return of_parts(same, figure, mixed=DEPENDS + "settings")


CLAIMS = [
    Claim(
        "M1",
        "M1: 8B at 12 bytes a parameter: DPO 112 GB, PPO 224 GB, exactly twice",
        "A",
        "8e9 parameters give these figures, and so does Llama-3-8B, to a percent",
        twelve_bytes,
        ("13",),
    ),
    Claim(
        "M2",
        "M2: SimPO needs 30-50% less memory than DPO",
        "A",
        "in all arrangements of reference, LoRA and activations SimPO's peak is 30 to 50% lower",
        simpo_saves,
        ("06", "13"),
    ),
    Claim(
        "M3",
        "M3: PPO needs about 4 times the base model, DPO about twice",
        "B",
        "to the nearest whole number, in weights alone, with all weights trained, and with LoRA",
        counting_models,
        ("13",),
    ),
    Claim(
        "M4",
        "M4: counted in bytes with optimiser states, PPO needs twice what DPO does",
        "A",
        "the ratio of states is within 10% of 2 in all arrangements of critic, reward, reference and LoRA",
        counting_bytes,
        ("13",),
    ),
    Claim(
        "M5",
        "M5: LoRA DPO with the adapters off as reference costs almost one frozen model",
        "A",
        "states and peak, with activations kept and not, are at most 1.1 times one frozen model",
        adapters_off,
        ("13",),
    ),
    Claim(
        "M6",
        "M6: ZeRO-3 spreads the 112 GB over GPUs",
        "A",
        "of states and of the peak each of 64 GPUs holds a 64th, to 10%",
        zero_three,
        ("13",),
    ),
    Claim(
        "M7",
        "M7: QLoRA makes alignment of large models fit consumer GPUs",
        "C",
        "a DPO step on one pair of models of 3 to 70 billion parameters fits one of four consumer GPUs",
        consumer_gpus,
        ("13",),
    ),
    Claim(
        "M8",
        "M8: a verbose model costs KV cache in serving, and so throughput",
        "A",
        "replies four times as long cost more than 5% of the tokens a second, of a full GPU and of one sequence",
        verbose,
        ("13",),
    ),
    Claim(
        "M9",
        "M9: reported peaks of an H100, 8B: PPO 76.2, DPO 48.5, with LoRA 24.1, SimPO 18.9 GB",
        "A",
        "one setting gives all four within 10%; in part if each alone is within 10% of some setting",
        reported,
        ("13",),
    ),
    Claim(
        "M10",
        "M10: 4 A100 for 7B RLHF, 2 for DPO",
        "B",
        "the fewest GPUs are 4 and 2 in all five settings",
        a100s,
        ("13",),
    ),
]
