"""Aligning language models: losses, trainers and a world to try them in. The flow is

    records -> batches -> log-probs -> losses -> trainers -> metrics -> figures

and imports run along it, never back. A name is imported from its room when it is first used, so that
`import course_lib` is quick and the calculators need no torch.
"""

import logging
from importlib import import_module

__version__ = "0.2.0"

_ROOMS = {
    "claims": (),
    "data": ("RecordError", "load_records"),
    "evaluation": (),
    "exact": (),
    "figures": (),
    "grading": (),
    "lessons": (),
    "logprobs": ("completion_logps", "sequence_logps"),
    "losses": (
        "bradley_terry_loss", "dpo_loss", "generalized_advantage_estimate", "grpo_advantages", "grpo_loss",
        "implicit_reward", "ipo_loss", "kl_estimate", "kl_shaped_rewards", "kto_kl_baseline", "kto_loss",
        "length_dpo_loss", "orpo_loss", "ppo_policy_loss", "ppo_value_loss", "rloo_advantages", "robust_dpo_loss",
        "sft_loss", "simpo_loss", "whiten",
    ),
    "machine": (),
    "memory": ("estimate_memory",),
    "models": ("load_policy", "load_reward_model", "reference_of", "save_pretrained"),
    "rewards": (),
    "rollouts": ("roll_out", "sample"),
    "shipped_models": (),
    "sizing": (),
    "speed": ("estimate_throughput",),
    "trainers": (
        "GroupConfig", "GroupTrainer", "History", "KTOConfig", "KTOTrainer", "OnlinePreferenceConfig",
        "OnlinePreferenceTrainer", "PPOConfig", "PPOTrainer", "PreferenceConfig", "PreferenceTrainer", "RewardTrainer",
        "SFTTrainer", "TrainingConfig", "TrainingError",
    ),
    "widgets": (),
    "world": (),
}  # fmt: skip
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str):
    if name in _ROOMS:
        return import_module(f"course_lib.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'course_lib' has no attribute {name!r}")
    return getattr(import_module(f"course_lib.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_ROOMS, *__all__]


# Two remarks of other libraries that mean nothing on a plain CPU, and would stand above every lesson's and command's
# own words; DeepSpeed's goes to stdout, where it breaks what `--json` prints. All else that they log is shown.
_HUSHED = {
    "DeepSpeed": "Setting accelerator to CPU",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}
for _logger, _remark in _HUSHED.items():
    logging.getLogger(_logger).addFilter(lambda record, remark=_remark: not str(record.msg).startswith(remark))
