"""The phases of one training step: rollout, scoring, forwards, backward, optimiser; and what is held in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from course_lib.memory.head import head_pass
from course_lib.memory.layers import layer_pass
from course_lib.memory.states import trained_weights
from course_lib.memory.tape import Marks
from course_lib.sizing import phases
from course_lib.sizing.settings import ONLINE, Numerics, Role, Settings
from course_lib.sizing.shapes import Architecture

Parts = dict[tuple[str, str], float]  # bytes by (role, kind)


@dataclass(frozen=True)
class Run:
    """A model's pass over the batch: its layers in order, its head, and what all of them share.

    Where it checkpoints, `layers` are as the backward pass runs them again, and `unrecorded` as they run first.
    """

    layers: list[Marks]
    unrecorded: list[Marks]
    head: Marks
    shared: float  # rotary tables
    recorded: bool
    checkpointed: bool
    entry: float  # bytes of a layer's input
    mask: float  # a tensor for all layers of a kind, a number for each pair of positions in a row
    embedded: float  # bytes of the embeddings while the model's code still holds them and no layer has saved them
    copies: float  # bf16 copies of weights that autocast caches until all forward passes are done

    def kept_of(self, layer: Marks) -> float:
        """What waits for a layer's backward pass."""
        return self.entry + layer.pinned if self.checkpointed else layer.saved

    @property
    def kept(self) -> float:
        """Activations that wait for the backward pass, without the head's."""
        return self.always + sum(map(self.kept_of, self.layers))

    @property
    def always(self) -> float:
        """What all layers share, and the backward pass needs to its end."""
        return self.shared + (self.mask if self.checkpointed else 0)


class Step:
    """The phases of one step, each as bytes by role and numerics."""

    def __init__(self, arch: Architecture, settings: Settings, states: dict[Role, dict[str, float]]):
        self.arch, self.settings, self.states = arch, settings, states
        self.trained = [role for role in states if role.trained]
        self.rows, self.length = settings.passed_rows, settings.passed_length
        self.tokens = self.rows * self.length
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
        size, checkpointed = (self.rows, self.length), grad and s.gradient_checkpointing
        entry = numerics.width * self.tokens * arch.hidden_size
        layers = self._layers(numerics, grad, again=checkpointed)
        held_anyway = not arch.is_gpt2 and (checkpointed or layers[-1].keeps_input or arch.layers == 1)
        cached = checkpointed and numerics.compute != numerics.width
        values = s.shared_critic and role.trained
        return Run(
            layers,
            self._layers(numerics, False) if checkpointed else layers,
            head_pass(arch, numerics, *size, s.scored, how, sequences=s.rows, grad=grad, values=values),
            self._rotary_tables(numerics.width),
            grad,
            checkpointed,
            entry,
            self._mask(numerics),
            0 if held_anyway else entry,
            self._copied(numerics) if cached else 0,
        )

    def _layers(self, numerics: Numerics, grad: bool, again: bool = False) -> list[Marks]:
        """Of every layer; the first one's input needs no gradient where the embeddings are frozen."""
        arch, adapters = self.arch, numerics.lora_rank is not None
        made: dict[tuple[bool, bool], Marks] = {}
        found = []
        for i in range(arch.layers):
            key = grad and adapters and not again and i == 0, i in arch.dense_layers
            if key not in made:
                options = {"grad": grad, "first": key[0], "again": again}
                made[key] = layer_pass(arch.layer(i), numerics, self.rows, self.length, **options)
            found.append(made[key])
        return found

    def _rotary_tables(self, width: int) -> float:
        """Cosines and sines of all positions: of one row, or where positions are given, of each."""
        arch = self.arch
        if arch.is_gpt2:
            return 0
        tables = arch.kinds_of_attention if arch.family == "gemma3" else 1
        size = arch.head_size / 2 if arch.family == "gpt-oss" else arch.rotary_size or arch.head_size
        return 2 * tables * width * size * self.length * (self.rows if self.settings.shared_prompt else 1)

    def _mask(self, numerics: Numerics) -> float:
        """In the hidden states' type for eager attention, else a byte a number, if there is one."""
        pairs = self.tokens * self.length
        if numerics.masked:
            return pairs * (numerics.width if numerics.eager else 1)
        return numerics.width * pairs * self.arch.kinds_of_attention if numerics.eager else 0

    def _copied(self, numerics: Numerics) -> float:
        """bf16 copies of all fp32 weights that layers multiply with and the optimiser trains."""
        weights = self.arch.weights_of_layers()
        if numerics.lora_rank:
            sides = sum(w.count * sum(w.shape) for w in weights if w.adapted)
            return 2 * numerics.lora_rank * sides if numerics.adapter_width == 4 else 0
        return 2 * sum(w.count * w.elements for w in weights if w.linear)

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
        return parts | {ids: 8 * self._ids}

    @property
    def _ids(self) -> int:
        """Whole numbers in a batch: token ids, and for shared prompts whose they are, where, and what is scored."""
        s = self.settings
        if not s.shared_prompt:
            return self.tokens
        return 3 * self.tokens + (s.rows if s.algorithm == "reward" else 3 * s.scored)

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
        outer = self.arch.parameters(role.head) - sum(w.elements * w.count for w in self.arch.weights_of_layers())
        return {(role.name, "gathered weights"): numerics.width * (one * min(layers, self.arch.layers) + outer)}

    def _forward(self, role: Role, run: Run, held: Parts, phase: str | None = None, also: Parts | None = None) -> None:
        name, phase = role.name, phase or phases.forward_of(role.name)
        rest = [self._resting(), held, also or {}]
        own, before = run.recorded, run.embedded
        before += (run.kept - run.kept_of(run.layers[-1])) if own else run.shared
        if not (own and run.checkpointed):
            before += run.mask
        last = run.unrecorded[-1].forward + (run.layers[-1].pinned if run.checkpointed else 0)
        self._record(phase, *rest, {(name, "activations"): before + last}, self._gathered(role, layers=2))
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
        cached = s.rows * arch.cached_tokens(s.sequence_length)
        cache = {(policy.name, "kv cache"): 2 * width * arch.layers * arch.keys * cached}
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
        """From the last layer to the first: activations kept shrink, and gradients grow.

        Both do so by equal steps where layers are equal, so that the peak is at an end of such a row of layers.
        """
        kept, made = run.kept, run.head.gradients
        sharded = self.settings.zero_stage >= 2
        for layer, at_an_end in _with_ends(run.layers[::-1]):
            kept -= run.kept_of(layer)
            made += 0 if sharded else layer.gradients
            working = layer.backward - layer.gradients
            if run.checkpointed:
                entry = 0 if layer.keeps_input else run.entry
                working = max(working + entry, layer.recompute - layer.gradients) + layer.pinned
            own = layer.gradients + self.states[role]["gradients"] if sharded else 0
            if at_an_end:
                parts = {(role.name, "activations"): kept + working, (role.name, "gradients"): made + own}
                self._record(phases.BACKWARD, *always, parts, self._gathered(role, layers=2))
            kept += layer.pinned

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


def _with_ends(layers: list[Marks]) -> Iterator[tuple[Marks, bool]]:
    """Each layer, and whether it is the first or the last of a row of equal ones."""
    for i, layer in enumerate(layers):
        yield layer, i in (0, len(layers) - 1) or not layers[i - 1] is layer is layers[i + 1]
