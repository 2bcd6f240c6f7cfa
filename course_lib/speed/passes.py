"""Which passes one step of each method makes, through which models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from course_lib.memory.states import model_states
from course_lib.sizing import phases
from course_lib.sizing.settings import Role, SpeedSettings, roles_of
from course_lib.sizing.shapes import Architecture
from course_lib.speed.work import Work, backward, body, decode, forward, prefill, training_batch


@dataclass(frozen=True)
class Pass:
    """A pass that a step makes `times` over; each time ZeRO-3 fetches the role's weights, if it does not have them."""

    phase: str
    role: Role
    work: Work
    times: float
    fetches: bool = True


def passes_of(arch: Architecture, s: SpeedSettings) -> list[Pass]:
    """All passes of one step on one GPU, in order."""
    roles = {role.name: role for role in roles_of(s)}
    policy = next(iter(roles.values()))
    found = [*_rollout(arch, s, policy), *_scoring(arch, s, policy, roles)]
    if "critic" in roles:
        update = _update(arch, s, roles["critic"])
        found += [replace(each, phase=phases.CRITIC) for each in update]
    return [*found, *_update(arch, s, policy)]


def _rollout(arch: Architecture, s: SpeedSettings, policy: Role) -> Iterator[Pass]:
    if s.online:
        rows = s.decoded_together
        times = s.rows * s.accumulation / rows
        yield Pass(phases.ROLLOUT_PREFILL, policy, prefill(arch, s, policy, rows), times)
        yield Pass(phases.ROLLOUT_DECODING, policy, decode(arch, s, policy, rows), times, fetches=False)


def _scoring(arch: Architecture, s: SpeedSettings, policy: Role, roles: dict[str, Role]) -> Iterator[Pass]:
    """Passes without gradients; the policy's own log-probabilities of its samples come from the sampling."""
    batch, times = training_batch(arch, s), s.accumulation
    if s.online and "reward" in roles:
        yield Pass(phases.REWARD_SCORING, roles["reward"], forward(arch, s, roles["reward"], batch), times)
    if "critic" in roles:
        yield Pass(phases.CRITIC, roles["critic"], forward(arch, s, roles["critic"], batch), times)
    mismatched = s.algorithm == "kto"  # KTO's baseline reads each prompt with another one's completion as well
    readings = 2 * times if mismatched else times
    if s.reference_kind in ("copy", "adapter-off"):
        work = forward(arch, s, policy, batch, adapters=False)
        yield Pass(phases.REFERENCE_FORWARD, roles.get("reference", policy), work, readings)
    if mismatched:
        yield Pass(phases.BASELINE_FORWARD, policy, forward(arch, s, policy, batch), times)


def _update(arch: Architecture, s: SpeedSettings, role: Role) -> Iterator[Pass]:
    batch, times = training_batch(arch, s), s.accumulation * s.update_epochs
    yield Pass(phases.POLICY_FORWARD, role, forward(arch, s, role, batch), times)
    if s.gradient_checkpointing:
        yield Pass(phases.RECOMPUTE, role, body(arch, s, role, batch), times, fetches=False)
    yield Pass(phases.BACKWARD, role, backward(arch, s, role, batch), times)


def unsharded_states(arch: Architecture, s: SpeedSettings, role: Role) -> dict[str, float]:
    """Bytes of the role's weights, gradients and optimiser state on all GPUs together."""
    return model_states(arch, role, replace(s, zero_stage=0, gpus=1))


def optimizer_work(arch: Architecture, s: SpeedSettings) -> Work:
    """The optimiser's traffic: gradients read, weights and moments read and written; each GPU does its shard."""
    states = [unsharded_states(arch, s, role) for role in roles_of(s) if role.trained]
    traffic = sum(3 * state["gradients"] + 2 * state["optimizer"] for state in states)
    return Work(0, s.update_epochs * traffic / (s.gpus if s.zero_stage else 1))
