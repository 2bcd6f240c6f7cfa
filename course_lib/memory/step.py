"""The phases of one training step: rollout, scoring, forwards, backward, optimiser; and what is held in each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from course_lib.memory.layers import head_pass, layer_pass
from course_lib.memory.states import trained_weights
from course_lib.memory.tape import Marks
from course_lib.sizing import phases
from course_lib.sizing.architectures import Architecture
from course_lib.sizing.settings import ONLINE, Numerics, Role, Settings

Parts = dict[tuple[str, str], float]  # bytes by (role, kind)


@dataclass(frozen=True)
class Run:
    """A model's pass over the batch: its layers, its head, and what all of them share."""

    layers: int
    layer: Marks
    first: Marks  # the first layer, whose input may need no gradient
    unrecorded: Marks  # a layer without autograd, as checkpointing runs it first
    head: Marks
    shared: float  # rotary tables
    checkpointed: bool
    entry: float  # bytes of a layer's input
    mask: float  # eager attention's: one for all layers, a number for each pair of positions in a row
    embedded: float  # bytes of the embeddings while the model's code still holds them and no layer has saved them
    copies: float  # bf16 copies of weights that autocast caches until all forward passes are done

    @property
    def kept_layer(self) -> float:
        return self.entry if self.checkpointed else self.layer.saved

    @property
    def kept(self) -> float:
        """Activations that wait for the backward pass, without the head's."""
        first = self.entry if self.checkpointed else self.first.saved
        return self.always + first + (self.layers - 1) * self.kept_layer

    @property
    def always(self) -> float:
        """What all layers share, and the backward pass needs to its end."""
        return self.shared + (self.mask if self.checkpointed else 0)

    @property
    def recorded(self) -> bool:
        return self.layer.backward > 0


class Step:
    """The phases of one step, each as bytes by role and numerics."""

    def __init__(self, arch: Architecture, settings: Settings, states: dict[Role, dict[str, float]]):
        self.arch, self.settings, self.states = arch, settings, states
        self.trained = [role for role in states if role.trained]
        self.tokens = settings.rows * settings.sequence_length
        self.found: dict[str, Parts] = {}

    def phases(self) -> dict[str, Parts]:
        s, runs = self.settings, {role: self._run(role, grad=True) for role in self.trained}
        if s.algorithm in ONLINE:
            self._rollout()
            self._scoring()
        elif s.reference_kind in ("copy", "adapter-off") and s.reference_order == "before":
            self._reference({}, {})
        held: Parts = {}
        copies: Parts = {}
        for role, run in runs.items():
            copies[role.name, "weight copies"] = run.copies
            self._forward(role, run, held, also=copies)
            held = held | {(role.name, "activations"): run.kept, (role.name, "logits"): self._held_logits(role, run)}
            if role is self.trained[0] and self._reference_after:
                self._reference(held, copies)
        self._backward(runs, held)
        self._optimizer()
        return self.found

    @property
    def _reference_after(self) -> bool:
        s = self.settings
        return (
            s.algorithm not in ONLINE and s.reference_kind in ("copy", "adapter-off") and s.reference_order == "after"
        )

    def _run(self, role: Role, *, grad: bool, adapters: bool = True) -> Run:
        s, arch = self.settings, self.arch
        numerics = s.numerics(role.trained)
        numerics = replace(numerics, trained=grad, lora_rank=numerics.lora_rank if adapters else None)
        how = s.logits if role.head == "lm" else "values" if role.name == "critic" else "score"
        if s.algorithm == "sft" and how == "full":
            how = "loss"
        size = (s.rows, s.sequence_length)
        checkpointed = grad and s.gradient_checkpointing
        first = grad and s.lora_rank is not None and not checkpointed
        entry = numerics.width * self.tokens * arch.hidden_size
        layer = layer_pass(arch, numerics, *size, grad=grad)
        held_anyway = not arch.is_gpt2 and (checkpointed or layer.keeps_input or arch.layers == 1)
        cached = checkpointed and numerics.compute != numerics.width
        return Run(
            arch.layers,
            layer,
            layer_pass(arch, numerics, *size, grad=grad, first=first),
            layer_pass(arch, numerics, *size, grad=False),
            head_pass(arch, numerics, *size, s.scored, how, grad=grad, values=s.shared_critic and role.trained),
            0 if arch.is_gpt2 else 2 * numerics.width * arch.head_size * s.sequence_length,
            checkpointed,
            entry,
            numerics.width * self.tokens * s.sequence_length if numerics.eager else 0,
            0 if held_anyway else entry,
            self._copied(numerics) if cached else 0,
        )

    def _copied(self, numerics: Numerics) -> float:
        """bf16 copies of all fp32 weights that layers multiply with and the optimiser trains."""
        shapes = [w.shape for w in self.arch.layer_weights() if w.linear]
        if numerics.lora_rank:
            cast = numerics.adapter_width == 4
            return 2 * numerics.lora_rank * sum(map(sum, shapes)) * self.arch.layers if cast else 0
        return 2 * sum(a * b for a, b in shapes) * self.arch.layers

    def _held_logits(self, role: Role, run: Run) -> float:
        """What of the head waits for the backward pass; SFT's loop holds the model's own logits as well."""
        s = self.settings
        own = s.numerics(True).compute * self.tokens * self.arch.vocab_size
        return run.head.saved + (own if s.algorithm == "sft" and s.logits == "full" else 0)

    def _resting(self, gradients: bool = False) -> Parts:
        """Weights and optimiser state of all models, and the batch's token ids."""
        kinds = ("weights", "gradients", "optimizer") if gradients else ("weights", "optimizer")
        parts = {(role.name, kind): found[kind] for role, found in self.states.items() for kind in kinds}
        ids = (self.trained[0].name, "activations")
        return parts | {ids: 8 * self.tokens}

    def _record(self, phase: str, *several: Parts) -> None:
        """Keep the sum of these parts as the phase's, if it is the largest so far."""
        parts: Parts = defaultdict(float)
        for some in several:
            for names, size in some.items():
                parts[names] += size
        if sum(parts.values()) > sum(self.found.get(phase, {}).values()):
            self.found[phase] = dict(parts)

    def _gathered(self, role: Role, *, layers: int) -> Parts:
        """ZeRO-3's weights in use: the outer ones through the pass, and those of the running layer and the next one."""
        if self.settings.zero_stage < 3:
            return {}
        numerics = self.settings.numerics(role.trained)
        one = sum(w.elements for w in self.arch.layer_weights())
        outer = self.arch.parameters(role.head) - one * self.arch.layers
        return {(role.name, "gathered weights"): numerics.width * (one * min(layers, self.arch.layers) + outer)}

    def _forward(self, role: Role, run: Run, held: Parts, phase: str | None = None, also: Parts | None = None) -> None:
        name, phase = role.name, phase or phases.forward_of(role.name)
        rest = [self._resting(), held, also or {}]
        own = run.recorded
        before = (run.kept - run.kept_layer) if own else run.shared
        before += run.embedded
        if not (own and run.checkpointed):
            before += run.mask
        layer = {(name, "activations"): before + (run.unrecorded if run.checkpointed else run.layer).forward}
        self._record(phase, *rest, layer, self._gathered(role, layers=2))
        head = {(name, "activations"): run.kept if own else run.shared, (name, "logits"): run.head.forward}
        self._record(phase, *rest, head, self._gathered(role, layers=0))

    def _reference(self, held: Parts, copies: Parts) -> None:
        policy = self.trained[0]
        copy = next((role for role in self.states if role.name == "reference"), None)
        run = self._run(copy or policy, grad=False, adapters=False)
        outer = self._gathered(policy, layers=0) if held and copy else {}
        self._forward(copy or policy, run, held, phases.REFERENCE_FORWARD, outer | copies)

    def _rollout(self) -> None:
        """Sampling: keys and values of all tokens so far, and the last token's logits in fp32, twice."""
        s, arch, policy = self.settings, self.arch, self.trained[0]
        width = s.numerics(True).compute
        cache = {(policy.name, "kv cache"): 2 * width * arch.layers * arch.keys * self.tokens}
        last = {(policy.name, "logits"): (width + 8) * s.rows * arch.vocab_size}
        self._record(phases.ROLLOUT, self._resting(), cache, last, self._gathered(policy, layers=2))

    def _scoring(self) -> None:
        """Every model reads the samples once, without gradients."""
        for role in self.states:
            self._forward(role, self._run(role, grad=False), {}, phases.SCORING)

    def _backward(self, runs: dict[Role, Run], held: Parts) -> None:
        """Models in the reverse order of their forward passes; in each, head, then layers from last to first."""
        rest, waiting = self._resting(), dict(held)
        done: Parts = {}
        for role, run in reversed(runs.items()):
            own_logits = waiting.pop((role.name, "logits")) - run.head.saved
            waiting.pop((role.name, "activations"))
            always = [rest, waiting, done, {(role.name, "logits"): own_logits}]
            self._head_backward(role, run, always)
            self._layers_backward(role, run, always)
            done[role.name, "gradients"] = self.states[role]["gradients"]
            leaving = {(role.name, "activations"): run.entry}
            self._record(phases.BACKWARD, *always, leaving, self._embedding_backward(role))

    def _head_backward(self, role: Role, run: Run, always: list[Parts]) -> None:
        made = run.head.gradients
        parts = {
            (role.name, "activations"): run.kept,
            (role.name, "logits"): run.head.backward - made,
            (role.name, "gradients"): made,
        }
        self._record(phases.BACKWARD, *always, parts, self._gathered(role, layers=0))

    def _layers_backward(self, role: Role, run: Run, always: list[Parts]) -> None:
        """Kept activations shrink and gradients grow by the same step each layer, so the peak is at an end."""
        sharded = self.settings.zero_stage >= 2
        for behind in {0, run.layers - 1}:  # layers whose backward is done
            last = behind == run.layers - 1
            one, kept = (run.first, run.always) if last else (run.layer, run.kept - run.kept_layer)
            made = run.head.gradients + (behind + 1) * one.gradients
            if sharded:
                made = run.head.gradients + one.gradients + self.states[role]["gradients"]
            working = one.backward - one.gradients
            if run.checkpointed:
                entry = 0 if one.keeps_input else run.entry
                working = max(working + entry, one.recompute - one.gradients)
            parts = {(role.name, "activations"): kept + working, (role.name, "gradients"): made}
            self._record(phases.BACKWARD, *always, parts, self._gathered(role, layers=2))

    def _embedding_backward(self, role: Role) -> Parts:
        """A tied embedding's gradient comes twice, from the output layer and from the lookup, and is summed."""
        numerics = self.settings.numerics(True)
        size = numerics.width * self.arch.vocab_size * self.arch.hidden_size
        twice = numerics.full and self.arch.tied and role.head == "lm"
        return {(role.name, "gradients"): 2 * size} if twice else {}

    def _optimizer(self) -> None:
        """The step itself, with its intermediates: of all weights at once (torch's, unfused), or of one tensor."""
        s = self.settings
        scratch: Parts = {}
        if s.optimizer == "adamw" and not s.fused:
            scratch = {(role.name, "update"): self.states[role]["optimizer"] / 2 for role in self.trained}
        elif s.optimizer in ("adamw-fp32", "adamw-master"):
            sizes = {role: max(w.elements for w in trained_weights(self.arch, role, s)) for role in self.trained}
            role = max(sizes, key=sizes.get)
            scratch[role.name, "update"] = 12 * sizes[role] / (s.gpus if s.zero_stage else 1)
        self._record(phases.OPTIMIZER, self._resting(gradients=True), scratch)
