"""The phases of a training step, under the names that estimates, figures and claims give them."""

ROLLOUT = "rollout"  # its two halves are timed apart, and held in memory as one
ROLLOUT_PREFILL = "rollout prefill"
ROLLOUT_DECODING = "rollout decoding"
SCORING = "scoring"
REWARD_SCORING = "reward scoring"
REFERENCE_FORWARD = "reference forward"
CRITIC = "critic"
BASELINE_FORWARD = "baseline forward"
POLICY_FORWARD = "policy forward"
RECOMPUTE = "recompute"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
COMMUNICATION = "communication"

SAMPLING = (ROLLOUT_PREFILL, ROLLOUT_DECODING)
TIMED = (*SAMPLING, REWARD_SCORING, REFERENCE_FORWARD, CRITIC, BASELINE_FORWARD, POLICY_FORWARD, RECOMPUTE, BACKWARD,
         OPTIMIZER, COMMUNICATION)  # fmt: skip
EQUAL_FOR_ALL = (OPTIMIZER, COMMUNICATION)  # as long on every GPU, however long its samples are


def forward_of(role: str) -> str:
    """The phase in which a trained model reads the batch."""
    return f"{role} forward"
