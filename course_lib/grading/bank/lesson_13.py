"""Tasks of lesson 13, Memory: where every byte goes."""

import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 13.1


def states_gb(trained, frozen, *, moments, moment_bytes, master):
    """GB of states of `trained` and `frozen` parameters, weights and gradients in 16 bits. A float, GB = 1e9 bytes.

    `moments`: how many the optimiser keeps of each trained parameter, of `moment_bytes` bytes each; `master`: whether
    it keeps a copy of the trained weights in 32 bits as well.
    """
    each = 2 + 2 + moments * moment_bytes
    if master:
        each += 4
    return (trained * each + frozen * 2) / 10**9


def states_gb_by_lists(trained, frozen, *, moments, moment_bytes, master):
    parts = [2 * (trained + frozen), 2 * trained, *[moment_bytes * trained] * moments, 4 * trained * bool(master)]
    return sum(parts) / 10**9


def a_count(draw: Draw, low=1.0, high=70.0) -> float:
    return draw.number(low, high, 1) * 1e9


def all_trained(draw: Draw):
    yield {"trained": a_count(draw), "frozen": 0.0, "moments": 2, "moment_bytes": 4, "master": False}
    yield {"trained": a_count(draw), "frozen": 0.0, "moments": 0, "moment_bytes": 4, "master": False}


def some_frozen(draw: Draw):
    size = a_count(draw)
    yield {"trained": size, "frozen": size, "moments": 2, "moment_bytes": 4, "master": False}
    yield {"trained": 2 * size, "frozen": size, "moments": 1, "moment_bytes": 4, "master": False}


def other_optimisers(draw: Draw):
    for moments, moment_bytes in ((1, 2), (2, 1), (2, 8)):
        yield {"trained": a_count(draw), "frozen": a_count(draw), "moments": moments, "moment_bytes": moment_bytes, "master": False}  # fmt: skip


def with_a_master_copy(draw: Draw):
    for moments, moment_bytes in ((1, 4), (2, 4)):
        yield {"trained": a_count(draw), "frozen": a_count(draw), "moments": moments, "moment_bytes": moment_bytes, "master": True}  # fmt: skip


STATES = Task(
    id="13.1",
    title="Bytes per parameter",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=states_gb,
    also_correct=[states_gb_by_lists],
    properties=[
        Property("a trained parameter is a weight, a gradient and its moments", all_trained),
        Property("a frozen parameter is a weight and no more", some_frozen),
        Property("another optimiser keeps another number of moments, of another size", other_optimisers),
        Property("a master copy comes on top", with_a_master_copy),
    ],
    mistakes=[
        Mistake(
            "gradients are forgotten",
            "A gradient is as large as its weight, and all of them are there when the optimiser begins its step.",
            "13, Twelve bytes per parameter",
            edit=("each = 2 + 2 +", "each = 2 +"),
        ),
        Mistake(
            "gradients are counted in 32 bits",
            "A gradient has the type of its weight, here 16 bits: 2 bytes.",
            "13, Twelve bytes per parameter",
            edit=("each = 2 + 2 +", "each = 2 + 4 +"),
        ),
        Mistake(
            "one moment is counted whatever the optimiser",
            "AdamW keeps two, one of the gradient and one of its square. SGD with momentum keeps one, plain SGD none.",
            "13, Twelve bytes of which optimiser?",
            edit=("moments * moment_bytes", "moment_bytes"),
        ),
        Mistake(
            "moments are counted in the weights' 16 bits",
            "Moments have a size of their own: 4 bytes in fp32, 1 byte in 8-bit Adam. The convention of 12 bytes takes fp32.",
            "13, Twelve bytes of which optimiser?",
            edit=("moments * moment_bytes", "moments * 2"),
        ),
        Mistake(
            "the optimiser's moments are forgotten",
            "With fp32 moments they are 8 of AdamW's 12 bytes, most of a model in training.",
            "13, Twelve bytes per parameter",
            edit=("2 + moments * moment_bytes", "2"),
        ),
        Mistake(
            "the master copy is forgotten",
            "A 32-bit copy of each trained weight is 4 bytes more.",
            "13, Twelve bytes of which optimiser?",
            edit=("if master:", "if False:"),
        ),
        Mistake(
            "the master copy is held to replace the 16-bit weights",
            "The 16-bit weights are still there, for the passes forward and backward. The copy is a second one.",
            "13, Twelve bytes of which optimiser?",
            edit=("each += 4", "each += 2"),
        ),
        Mistake(
            "frozen parameters are counted like trained ones",
            "A frozen model has no gradients and no optimiser: it is its weights.",
            "13, Twelve bytes per parameter",
            edit=("frozen * 2", "frozen * each"),
        ),
        Mistake(
            "frozen parameters are left out",
            "They are not trained, and yet they must be there: 2 bytes each.",
            "13, Twelve bytes per parameter",
            edit=(" + frozen * 2", ""),
        ),
        Mistake(
            "GiB are returned, not GB",
            "A GB is 1e9 bytes, a GiB 2**30, 7% more. The number in GiB is smaller.",
            "13, Twelve bytes per parameter",
            edit=("/ 10**9", "/ 2**30"),
        ),
    ],
    hints=[
        "List what is kept between two steps for one trained parameter. Then for a frozen one.",
        "Trained: 2 (weight) + 2 (gradient) + moments * moment_bytes, and 4 more with a master copy. Frozen: 2. Divide by 1e9.",
    ],
    rtol=1e-4,
)  # fmt: skip


# ---- 13.2


def logits_or_layers(pairs, length, *, vocab, layers, hidden, inner, q, kv, heads, checkpointed):
    """Which needs more in the policy's backward pass, and how many GB each: {"logits": GB, "layers": GB, "larger": name}.

    All arguments are whole numbers, but for `checkpointed`, which is True or False.
    """
    tokens = 2 * pairs * length
    logits = 12 * vocab * tokens / 10**9
    a_layer = (16 * hidden + 8) + (4 * q + 4 * kv + 4 * heads) + 8 * inner
    if checkpointed:
        a_layer = 2 * hidden
    kept = layers * a_layer * tokens / 10**9
    return {"logits": logits, "layers": kept, "larger": "logits" if logits > kept else "layers"}


def logits_or_layers_per_token(pairs, length, *, vocab, layers, hidden, inner, q, kv, heads, checkpointed):
    per_token = {
        "logits": (4 + 4 + 4) * vocab,
        "layers": layers * (2 * hidden if checkpointed else 8 + 4 * (4 * hidden + q + kv + heads + 2 * inner)),
    }
    found = {name: size * length * pairs / 5e8 for name, size in per_token.items()}
    return found | {"larger": max(found, key=found.get)}


def a_batch(draw: Draw) -> dict:
    return {"pairs": draw.randint(2, 9), "length": draw.choice([512, 1024, 1536, 2048])}


def wide_model(draw: Draw, checkpointed=False) -> dict:
    """Few words and many wide layers: the layers keep more, unless they are checkpointed."""
    heads = draw.choice([24, 32, 40])
    hidden, shape = 128 * heads, {"vocab": draw.choice([32000, 50257, 64000]), "layers": draw.randint(24, 36)}
    more = {
        "hidden": hidden,
        "inner": 3 * hidden + 256 * draw.randint(1, 6),
        "q": hidden - 512,
        "kv": 128 * draw.choice([4, 8]),
    }
    return a_batch(draw) | shape | more | {"heads": heads, "checkpointed": checkpointed}


def narrow_model(draw: Draw, checkpointed=False) -> dict:
    """Many words and few narrow layers: logits need more."""
    heads = draw.choice([12, 14, 16])
    hidden, shape = 64 * heads, {"vocab": draw.choice([128256, 151936, 256000]), "layers": draw.randint(9, 14)}
    more = {
        "hidden": hidden,
        "inner": 3 * hidden + 256 * draw.randint(1, 4),
        "q": hidden + 64,
        "kv": 64 * draw.choice([2, 4]),
    }
    return a_batch(draw) | shape | more | {"heads": heads, "checkpointed": checkpointed}


def much_in_layers(draw: Draw):
    return [wide_model(draw) | {"pairs": 1}, wide_model(draw)]


def much_in_logits(draw: Draw):
    return [narrow_model(draw) | {"pairs": 1}, narrow_model(draw)]


def checkpointed_models(draw: Draw):
    return [narrow_model(draw, True), wide_model(draw, True)]


LOGITS = Task(
    id="13.2",
    title="Logits or layers",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=logits_or_layers,
    also_correct=[logits_or_layers_per_token],
    properties=[
        Property("with a small vocabulary and many wide layers, the layers need more", much_in_layers),
        Property("with a large vocabulary and few narrow layers, the logits need more", much_in_logits),
        Property("checkpointing leaves of each layer its input, and of the logits all", checkpointed_models),
    ],
    mistakes=[
        Mistake(
            "a pair is counted as one sequence",
            "A pair is two replies, and both go through the policy, each with its prompt.",
            "13, What one layer keeps",
            edit=("tokens = 2 * pairs * length", "tokens = pairs * length"),
        ),
        Mistake(
            "logits are counted in 16 bits alone",
            "2 bytes are what the matrix product returns. The log-softmax works in fp32, and its gradients are fp32 as well.",
            "13, Why logits hurt",
            edit=("12 * vocab", "2 * vocab"),
        ),
        Mistake(
            "logits are counted as they wait, not as they are at their height",
            "4 bytes for each word wait between the passes. When backward begins, two fp32 gradients come on top: 12.",
            "13, Why logits hurt",
            edit=("12 * vocab", "4 * vocab"),
        ),
        Mistake(
            "logits are counted in the forward pass",
            "10 bytes for each word is the height of the forward pass. The question is about backward: 12.",
            "13, Why logits hurt",
            edit=("12 * vocab", "10 * vocab"),
        ),
        Mistake(
            "one layer alone is counted",
            "What a layer keeps waits until backward reaches it, so at the start of backward all layers' tensors are there.",
            "13, What one layer keeps",
            edit=("layers * a_layer", "a_layer"),
        ),
        Mistake(
            "checkpointing is not looked at",
            "A checkpointed layer keeps its input, 2 bytes for each of its width, and computes the rest again.",
            "13, What one layer keeps",
            edit=("if checkpointed:", "if False:"),
        ),
        Mistake(
            "only inputs are counted in any case",
            "Without checkpointing a layer keeps more than 20 times its input: each product's input, queries, keys, values, and the MLP's wide tensors.",
            "13, What one layer keeps",
            edit=("if checkpointed:", "if True:"),
        ),
        Mistake(
            "the MLP's wide tensors are forgotten",
            "The MLP keeps four tensors of its inner width, 8 bytes for each number of that width. They are the largest part of a layer.",
            "13, What one layer keeps",
            edit=(" + 8 * inner", ""),
        ),
        Mistake(
            "a layer is taken to keep 34 times its width",
            "That rule of thumb was made for another layer. Count the tensors of this one.",
            "13, What one layer keeps",
            edit=("(16 * hidden + 8) + (4 * q + 4 * kv + 4 * heads) + 8 * inner", "34 * hidden"),
        ),
        Mistake(
            "GiB are returned, not GB",
            "A GB is 1e9 bytes, a GiB 2**30, 7% more. The number in GiB is smaller.",
            "13, Twelve bytes per parameter",
            edit=[("vocab * tokens / 10**9", "vocab * tokens / 2**30"), ("a_layer * tokens / 10**9", "a_layer * tokens / 2**30")],
        ),
    ],
    hints=[
        "Count bytes per token first: what do the logits of one token need, and what does one layer keep of it? Then multiply.",
        "Logits: 12 bytes for each word. A layer: (16 H + 8) + (4 q + 4 kv + 4 heads) + 8 I bytes, with H the width `hidden` and I the width `inner`; checkpointed 2 H. All layers together.",
        "There are 2 * pairs * length tokens, as a pair is two sequences. Divide by 1e9.",
    ],
    rtol=2e-6,
    atol=1e-9,
    equivalent={"`logits > kept` -> `logits >= kept`": "the two are never equal"},
)  # fmt: skip


# ---- 13.3


def before_backward(passes):
    """What forward passes hold above the states: {"peak": GB, "waiting": GB when they are over}.

    `passes`: in their order, dicts with the GB "layers", "head" and "head_kept" and the flags
    "requires_grad", "no_grad" and "detached".
    """
    waiting = peak = 0.0
    for one in passes:
        recorded = one["requires_grad"] and not one["no_grad"]
        layers = one["layers"] if recorded else 0.0
        peak = max(peak, waiting + layers + one["head"])
        if recorded and not one["detached"]:
            waiting += layers + one["head_kept"]
    return {"peak": peak, "waiting": waiting}


def before_backward_by_lists(passes):
    kept = [
        (one["layers"], one["head_kept"]) if one["requires_grad"] and not one["no_grad"] else (0, 0) for one in passes
    ]
    lasting = [0 if one["detached"] else sum(pair) for one, pair in zip(passes, kept)]
    heights = [sum(lasting[:i]) + kept[i][0] + one["head"] for i, one in enumerate(passes)]
    return {"peak": max(heights), "waiting": sum(lasting)}


def a_pass(draw: Draw, requires_grad: bool, no_grad: bool, detached: bool = False) -> dict:
    """With a head that rises to 2.5 times what it keeps, as bf16 logits do (10 and 4 bytes a word)."""
    kept = draw.number(1.0, 3.0, 1)
    sizes = {"layers": draw.number(4.0, 9.0, 1), "head": round(2.5 * kept, 2), "head_kept": kept}
    return sizes | {"requires_grad": requires_grad, "no_grad": no_grad, "detached": detached}


def policy_pass(draw: Draw) -> dict:
    return a_pass(draw, True, False)


def as_in_the_lesson(draw: Draw):
    yield {"passes": [policy_pass(draw)]}
    yield {"passes": [policy_pass(draw), a_pass(draw, False, True)]}


def frozen_without_no_grad(draw: Draw):
    yield {"passes": [a_pass(draw, False, False)]}
    yield {"passes": [policy_pass(draw), a_pass(draw, False, False)]}


def a_copy_that_is_not_frozen(draw: Draw):
    yield {"passes": [policy_pass(draw), a_pass(draw, True, False)]}
    yield {"passes": [policy_pass(draw), a_pass(draw, True, True)]}


def detached_afterwards(draw: Draw):
    yield {"passes": [a_pass(draw, True, False, True)]}
    yield {"passes": [policy_pass(draw), a_pass(draw, True, False, True)]}
    yield {"passes": [a_pass(draw, True, False, True), policy_pass(draw)]}


def many_passes(draw: Draw):
    yield {
        "passes": [a_pass(draw, False, False), policy_pass(draw), a_pass(draw, True, False), a_pass(draw, False, True)]
    }
    yield {"passes": [a_pass(draw, True, True), policy_pass(draw), policy_pass(draw), a_pass(draw, False, False, True)]}


WAITING = Task(
    id="13.3",
    title="A warning about nothing",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=before_backward,
    also_correct=[before_backward_by_lists],
    properties=[
        Property("the lesson's step: the policy keeps, and the reference's logits come on top", as_in_the_lesson),
        Property("a frozen model keeps nothing, even without no_grad", frozen_without_no_grad),
        Property("a copy whose weights require a gradient keeps as the policy does, except under no_grad", a_copy_that_is_not_frozen),
        Property("a detached result lets go, but only when the pass is over", detached_afterwards),
        Property("several passes, one after the other", many_passes),
    ],
    mistakes=[
        Mistake(
            "only no_grad is looked at",
            "Autograd records where something requires a gradient. If the weights are frozen and the inputs are token ids, nothing does, so nothing is kept.",
            "13, A real step, byte by byte",
            edit=('one["requires_grad"] and not one["no_grad"]', 'not one["no_grad"]'),
        ),
        Mistake(
            "only requires_grad is looked at",
            "Under no_grad nothing is recorded, whatever the weights require.",
            "13, A real step, byte by byte",
            edit=('one["requires_grad"] and not one["no_grad"]', 'one["requires_grad"]'),
        ),
        Mistake(
            "one of the two is held to be enough",
            "To keep a tensor autograd needs both: a weight that requires a gradient, and no no_grad around it.",
            "13, A real step, byte by byte",
            edit=('one["requires_grad"] and not one["no_grad"]', 'one["requires_grad"] or not one["no_grad"]'),
        ),
        Mistake(
            "detach is taken for no_grad",
            "`detach()` comes after the pass. Until then autograd has kept every layer's tensors, and the peak has seen them.",
            "13, A real step, byte by byte",
            edit=[
                ('one["requires_grad"] and not one["no_grad"]', 'one["requires_grad"] and not one["no_grad"] and not one["detached"]'),
                ('if recorded and not one["detached"]:', "if recorded:"),
            ],
        ),
        Mistake(
            "detach is not looked at",
            "Once only the detached result is left, nobody holds the record of the pass any more, and its tensors are freed.",
            "13, A real step, byte by byte",
            edit=('if recorded and not one["detached"]:', "if recorded:"),
        ),
        Mistake(
            "a pass that records nothing has no logits",
            "Its logits live for a moment only, but they come on top of all that waits: in the lesson that moment is the peak.",
            "13, A real step, byte by byte",
            edit=('layers + one["head"])', 'layers + (one["head"] if recorded else 0.0))'),
        ),
        Mistake(
            "the logits' part that waits is forgotten",
            "The log-softmax keeps its result for backward, 4 bytes for each word of the vocabulary.",
            "13, Why logits hurt",
            edit=('layers + one["head_kept"]', "layers"),
        ),
        Mistake(
            "the logits wait at their full height",
            "The 16-bit logits and one fp32 copy are freed when the pass is over. 4 of the 10 bytes wait.",
            "13, Why logits hurt",
            edit=('layers + one["head_kept"]', 'layers + one["head"]'),
        ),
        Mistake(
            "the peak forgets what waits from earlier passes",
            "A pass runs on top of all that earlier passes keep for backward.",
            "13, A real step, byte by byte",
            edit=("max(peak, waiting + layers", "max(peak, layers"),
        ),
    ],
    hints=[
        "Give the function a reference that is frozen and runs without no_grad. What would autograd need the reference's activations for?",
        "Autograd records a pass if some weight in it requires a gradient and no_grad is not set. The function looks at one of the two.",
    ],
    rtol=1e-5,
)  # fmt: skip


# ---- 13.4


def read_timeline(states, events):
    """Where a step's memory is highest: {"peak": GB, "phase": its name, "largest": the kind that holds most there}.

    `states`: GB held before the step; `events`: lists [phase, kind, GB], above 0 if so much is born, below if it dies.
    """
    held, alive = states, {}
    peak, where, largest = states, None, None
    for phase, kind, size in events:
        held += size
        alive[kind] = alive.get(kind, 0.0) + size
        if held > peak:
            peak, where, largest = held, phase, max(alive, key=alive.get)
    return {"peak": peak, "phase": where, "largest": largest}


def read_timeline_in_arrays(states, events):
    sizes = torch.tensor([size for *_, size in events], dtype=torch.float64)
    top = int((sizes.cumsum(0) * 1000).round().argmax())
    kinds = {kind: sum(s for _, k, s in events[: top + 1] if k == kind) for _, kind, _ in events}
    return {
        "peak": states + sizes[: top + 1].sum().item(),
        "phase": events[top][0],
        "largest": max(kinds, key=kinds.get),
    }


def every_phase_anew(states, events):
    peak, where, largest, held, before, alive = states, None, None, states, None, {}
    for phase, kind, size in events:
        if phase != before:
            held, before, alive = states, phase, {}
        held += size
        alive[kind] = alive.get(kind, 0.0) + size
        if held > peak:
            peak, where, largest = held, phase, max(alive, key=alive.get)
    return {"peak": peak, "phase": where, "largest": largest}


def largest_of_the_step(states, events):
    held, born = states, {}
    peak, where = states, None
    for phase, kind, size in events:
        held += size
        born[kind] = born.get(kind, 0.0) + max(size, 0.0)
        if held > peak:
            peak, where = held, phase
    return {"peak": peak, "phase": where, "largest": max(born, key=born.get)}


def busiest_phase(states, events):
    held, alive, born = states, {}, {}
    peak, largest = states, None
    for phase, kind, size in events:
        held += size
        alive[kind] = alive.get(kind, 0.0) + size
        born[phase] = born.get(phase, 0.0) + max(size, 0.0)
        if held > peak:
            peak, largest = held, max(alive, key=alive.get)
    return {"peak": peak, "phase": max(born, key=born.get), "largest": largest}


def a_timeline(draw: Draw, *, unit, layer, gradient, update, layers=3, reference="after") -> dict:
    """A DPO step. `unit`: GB of one byte for each word of the vocabulary: logits rise to 10 and keep 4, backward adds 8."""
    unit, width = round(draw.uniform(*unit), 2), [draw.number(*layer) for _ in range(layers)]
    gradients = [draw.number(*gradient) for _ in range(layers)]
    forward = [["policy forward", "activations", each] for each in width]
    forward += [["policy forward", "logits", 10 * unit], ["policy forward", "logits", -6 * unit]]
    frozen = [["reference forward", "activations", 0.1], ["reference forward", "logits", 10 * unit]]
    frozen += [["reference forward", "activations", -0.1], ["reference forward", "logits", -10 * unit]]
    backward = [["backward", "logits", 8 * unit], ["backward", "logits", -12 * unit]]
    for one, other in zip(reversed(width), gradients):
        backward += [["backward", "gradients", other], ["backward", "activations", -one]]
    end = [["optimizer", "update", draw.number(*update)]]
    end += [["optimizer", "update", -end[0][2]], ["optimizer", "gradients", -sum(gradients)]]
    first = {"after": forward + frozen, "before": frozen + forward, "none": forward}[reference]
    events = [[phase, kind, round(size, 2)] for phase, kind, size in first + backward + end]
    return {"states": draw.number(20.0, 60.0, 1), "events": events}


def short_ones(draw: Draw):
    a, b = draw.number(1.0, 4.0, 1), draw.number(1.0, 4.0, 1)
    yield {"states": 20.0, "events": [["forward", "activations", a], ["forward", "logits", 9.0], ["forward", "logits", -9.0], ["backward", "gradients", b]]}  # fmt: skip
    yield {"states": 30.0, "events": [["forward", "logits", 6.0], ["forward", "logits", -4.0], ["backward", "gradients", 8.0 + b], ["backward", "logits", -2.0]]}  # fmt: skip


def reference_on_top(draw: Draw):
    yield a_timeline(draw, unit=(0.5, 0.8), layer=(0.5, 0.9), gradient=(0.1, 0.2), update=(0.3, 0.6))
    yield a_timeline(draw, unit=(0.2, 0.25), layer=(2.0, 3.0), gradient=(0.05, 0.1), update=(0.3, 0.6), layers=4)


def backward_highest(draw: Draw):
    yield a_timeline(
        draw, unit=(0.5, 0.8), layer=(0.5, 0.9), gradient=(0.1, 0.2), update=(0.3, 0.6), reference="before"
    )
    yield a_timeline(
        draw, unit=(0.2, 0.25), layer=(2.0, 3.0), gradient=(0.05, 0.1), update=(0.3, 0.6), reference="none"
    )


def optimizer_highest(draw: Draw):
    yield a_timeline(draw, unit=(0.04, 0.05), layer=(0.8, 0.9), gradient=(0.7, 0.75), update=(4.5, 5.5))
    yield a_timeline(
        draw, unit=(0.04, 0.05), layer=(1.5, 1.6), gradient=(1.3, 1.4), update=(3.0, 3.5), reference="none"
    )


def as_high_again(draw: Draw):
    size = float(draw.randint(2, 5))
    events = [
        ["policy forward", "activations", size],
        ["policy forward", "logits", 1.0],
        ["policy forward", "logits", -1.0],
    ]
    yield {
        "states": 20.0,
        "events": [*events, ["reference forward", "logits", 1.0], ["reference forward", "logits", -1.0]],
    }


TIMELINE = Task(
    id="13.4",
    title="Reading a timeline",
    kind="read the curve",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=read_timeline,
    also_correct=[read_timeline_in_arrays],
    properties=[
        Property("a few events", short_ones),
        Property("logits of the reference on top of all that the policy keeps", reference_on_top),
        Property("a step that is highest in the backward pass", backward_highest),
        Property("a step that is highest in the optimiser", optimizer_highest),
        Property("a height that is reached twice counts the first time", as_high_again),
    ],
    mistakes=[
        Mistake(
            "what dies is never taken off",
            "Memory is what is held at one moment. A sum of all births counts tensors that were long gone when others came.",
            "13, A real step, byte by byte",
            edit=("held += size", "held += max(size, 0.0)"),
        ),
        Mistake(
            "the states are forgotten",
            "Weights and moments are the floor on which the step stands: the peak is what the card must hold, states included.",
            "13, A real step, byte by byte",
            edit=[("held, alive = states", "held, alive = 0.0"), ("peak, where, largest = states", "peak, where, largest = 0.0")],
        ),
        Mistake(
            "the last moment is read, not the highest",
            "At the end of a step hardly more than states is left. What does not fit is the moment at which most is held.",
            "13, A real step, byte by byte",
            edit=("if held > peak:", "if True:"),
        ),
        Mistake(
            "each phase is taken to begin with the states alone",
            "What the policy keeps for backward is still there while the reference runs. That is why the second spike is the higher one.",
            "13, A real step, byte by byte",
            function=every_phase_anew,
        ),
        Mistake(
            "the largest kind is that of the event at the peak",
            "That event is the last straw. What holds most may be something that has been there for long.",
            "13, A real step, byte by byte",
            edit=("max(alive, key=alive.get)", "kind"),
        ),
        Mistake(
            "the largest kind is counted over the whole step",
            "What was born in other phases may be dead at the peak. Only what is alive there can be saved there.",
            "13, A real step, byte by byte",
            function=largest_of_the_step,
        ),
        Mistake(
            "the phase is the one that allocates most",
            "A phase that makes little can still be the highest if it runs on top of what others left.",
            "13, A real step, byte by byte",
            function=busiest_phase,
        ),
        Mistake(
            "a height that is reached again counts",
            "The first time is asked for.",
            "13, A real step, byte by byte",
            edit=("held > peak", "held >= peak"),
        ),
        Mistake(
            "states are named as the largest kind",
            "They are there in every phase. Asked for is the largest among what comes and goes.",
            "13, A real step, byte by byte",
            edit=("held, alive = states, {}", 'held, alive = states, {"states": states}'),
        ),
    ],
    hints=[
        "Go through the events once and keep two accounts: how much is held in all, and how much of each kind.",
        "Each time the total is higher than ever before, write down the total, the phase, and the kind with the largest account.",
    ],
    rtol=1e-5,
    equivalent={"`alive.get(kind, 0.0)` -> `alive.get(kind, 1.0)`": "every kind's account begins with the same amount"},
)  # fmt: skip


# ---- 13.5


def layer_keeps(hidden, inner, q, kv, heads, length, *, eager):
    """Bytes that one layer keeps for each token, bf16, in sequences of `length` tokens. Whole numbers in, a number out."""
    norms_and_products = 16 * hidden + 8
    if eager:
        copies = 2 * q + 2 * q
        scores = 4 * heads * length + 2 * heads * length
        attention = 2 * q + 2 * q + copies + scores
    else:
        attention = 4 * q + 4 * kv + 4 * heads
    return norms_and_products + attention + 8 * inner


def layer_keeps_as_a_sum(hidden, inner, q, kv, heads, length, *, eager):
    flash = 8 + 16 * hidden + 8 * inner + 4 * (q + kv + heads)
    return flash + (4 * (q - kv - heads) + 6 * heads * length if eager else 0)


def a_layer(draw: Draw, eager: bool, length: tuple = (16, 64), shared: bool = True) -> dict:
    """Where `shared`, two or four query heads share a key head."""
    kv_heads, size = draw.choice([2, 3]), draw.choice([8, 16])
    heads = kv_heads * draw.choice([2, 4]) if shared else kv_heads
    sizes = {
        "hidden": 8 * draw.randint(5, 12),
        "inner": 8 * draw.randint(14, 30),
        "q": heads * size,
        "kv": kv_heads * size,
    }
    return sizes | {"heads": heads, "length": draw.randint(*length), "eager": eager}


def with_flash(draw: Draw):
    return [a_layer(draw, False), a_layer(draw, False)]


def longer_with_flash(draw: Draw):
    one = a_layer(draw, False)
    return [one, one | {"length": 10 * one["length"]}]


def with_eager(draw: Draw):
    return [a_layer(draw, True, shared=False), a_layer(draw, True)]


def longer_with_eager(draw: Draw):
    one = a_layer(draw, True)
    return [one | {"length": 1}, one, one | {"length": 10 * one["length"]}]


EAGER = Task(
    id="13.5",
    title="Attention that keeps its scores",
    kind="implement",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=layer_keeps,
    also_correct=[layer_keeps_as_a_sum],
    properties=[
        Property("with flash attention it is the lesson's formula", with_flash),
        Property("with flash attention a token costs the same in a longer sequence", longer_with_flash),
        Property("eager attention keeps copies of keys and values, and scores twice", with_eager),
        Property("with eager attention a token costs the more, the longer the sequence", longer_with_eager),
    ],
    mistakes=[
        Mistake(
            "scores are kept in fp32 alone",
            "The softmax keeps its fp32 result, and the product with the values keeps its 16-bit copy: 4 + 2 bytes.",
            "13, What one layer keeps",
            edit=("4 * heads * length + 2 * heads * length", "4 * heads * length"),
        ),
        Mistake(
            "scores are kept in 16 bits alone",
            "The softmax is computed in fp32 and keeps its result for backward, beside the 16-bit copy: 4 + 2 bytes.",
            "13, What one layer keeps",
            edit=("4 * heads * length + 2 * heads * length", "2 * heads * length"),
        ),
        Mistake(
            "one head's scores are counted",
            "Every query head has a table of its own, each token against each.",
            "13, What one layer keeps",
            edit=("4 * heads * length + 2 * heads * length", "4 * length + 2 * length"),
        ),
        Mistake(
            "all tokens' scores are counted for each token",
            "The whole table is length times length, but this is per token: one row of it, with `length` scores.",
            "13, What one layer keeps",
            edit=("4 * heads * length + 2 * heads * length", "4 * heads * length**2 + 2 * heads * length**2"),
        ),
        Mistake(
            "half of the scores is left out as masked",
            "Eager attention writes out the whole table. Masked scores are zeros after the softmax, and a zero takes as many bytes.",
            "13, What one layer keeps",
            edit=("4 * heads * length + 2 * heads * length", "2 * heads * length + heads * length"),
        ),
        Mistake(
            "keys and values keep their own width",
            "Eager attention copies them, so that each query head has a key and a value of its own. It is the copies that are kept, of the queries' width.",
            "13, What one layer keeps",
            edit=("copies = 2 * q + 2 * q", "copies = 2 * kv + 2 * kv"),
        ),
        Mistake(
            "keys and values are counted as they are, and as copies too",
            "Only the copies enter the products, so only these are kept for backward.",
            "13, What one layer keeps",
            edit=("+ copies + scores", "+ copies + scores + 4 * kv"),
        ),
        Mistake(
            "flash's statistics are counted in eager attention",
            "The 4 bytes for each head let flash attention compute the scores again. Eager attention keeps the scores and needs none.",
            "13, What one layer keeps",
            edit=("+ copies + scores", "+ copies + scores + 4 * heads"),
        ),
        Mistake(
            "eager is not looked at",
            "That is flash attention's formula, which keeps no scores.",
            "13, What one layer keeps",
            edit=("if eager:", "if False:"),
        ),
        Mistake(
            "eager and flash are swapped",
            "Eager attention is the one that keeps the scores.",
            "13, What one layer keeps",
            edit=("if eager:", "if not eager:"),
        ),
    ],
    hints=[
        "Norms, products and the MLP keep what they kept. Only the lesson's middle part, 4 q + 4 kv + 4 heads, is another.",
        "Eager: queries and output (2 bytes of width q each), copies of keys and of values (2 bytes of width q each), and scores.",
        "For one token and one head there are `length` scores, kept once with 4 bytes and once with 2. Statistics there are none.",
    ],
    rtol=1e-6,
)  # fmt: skip


# ---- 13.6


def largest_model(models, *, gib, gpus):
    """The largest model that fits on `gpus` cards of `gib` GiB each, and how it is trained with DPO.

    `models`: dicts with "name", "parameters", "linear" and "adapters" (counts in billions), and "step" (GB on each card).
    Returns {"model": name, "method": "full" | "lora" | "qlora", "gb": GB on each card}, or None three times.
    """
    for model in sorted(models, key=lambda each: each["parameters"], reverse=True):
        outer = model["parameters"] - model["linear"]
        adapters = 16 * model["adapters"]
        states = {
            "full": 12 * model["parameters"] + 2 * model["parameters"],
            "lora": 2 * model["parameters"] + adapters,
            "qlora": 4.127 / 8 * model["linear"] + 2 * outer + adapters,
        }
        for method, size in states.items():
            gb = size / gpus + model["step"] + 0.8
            if gb <= gib * 2**30 / 10**9:
                return {"model": model["name"], "method": method, "gb": gb}
    return {"model": None, "method": None, "gb": None}


def largest_model_by_lists(models, *, gib, gpus):
    card, fitting = gib * 1024**3 / 10**9, []
    for m in models:
        n, inside, extra = m["parameters"], m["linear"], m["adapters"] * (4 + 4 + 8)
        for rank, (method, size) in enumerate(
            [("qlora", inside * 4.127 / 8 + (n - inside) * 2 + extra), ("lora", 2 * n + extra), ("full", 14 * n)]
        ):
            need = 0.8 + m["step"] + size / gpus
            if need <= card:
                fitting.append((n, rank, m["name"], method, need))
    if not fitting:
        return dict.fromkeys(("model", "method", "gb"))
    _, _, name, method, need = max(fitting)
    return {"model": name, "method": method, "gb": need}


def first_that_fits(models, *, gib, gpus):
    for model in models:
        outer = model["parameters"] - model["linear"]
        adapters = 16 * model["adapters"]
        states = {
            "full": 12 * model["parameters"] + 2 * model["parameters"],
            "lora": 2 * model["parameters"] + adapters,
            "qlora": 4.127 / 8 * model["linear"] + 2 * outer + adapters,
        }
        for method, size in states.items():
            gb = size / gpus + model["step"] + 0.8
            if gb <= gib * 2**30 / 10**9:
                return {"model": model["name"], "method": method, "gb": gb}
    return {"model": None, "method": None, "gb": None}


def least_change_first(models, *, gib, gpus):
    for method in ("full", "lora", "qlora"):
        for model in sorted(models, key=lambda each: each["parameters"], reverse=True):
            outer = model["parameters"] - model["linear"]
            adapters = 16 * model["adapters"]
            states = {
                "full": 12 * model["parameters"] + 2 * model["parameters"],
                "lora": 2 * model["parameters"] + adapters,
                "qlora": 4.127 / 8 * model["linear"] + 2 * outer + adapters,
            }
            gb = states[method] / gpus + model["step"] + 0.8
            if gb <= gib * 2**30 / 10**9:
                return {"model": model["name"], "method": method, "gb": gb}
    return {"model": None, "method": None, "gb": None}


SIZES = {"1b": (1.0, 1.5), "3b": (2.8, 3.4), "8b": (7.2, 8.6), "30b": (28.0, 34.0), "70b": (66.0, 74.0)}


def a_model(draw: Draw, name: str) -> dict:
    parameters = draw.number(*SIZES[name], 2)
    linear, adapters = (
        round(parameters * draw.uniform(0.75, 0.85), 2),
        round(parameters * draw.uniform(0.012, 0.018), 3),
    )
    return {
        "name": name,
        "parameters": parameters,
        "linear": linear,
        "adapters": adapters,
        "step": draw.number(2.0, 4.0, 1),
    }


def needs(model: dict, method: str, gpus: int) -> float:
    per = {
        "full": 14 * model["parameters"],
        "lora": 2 * model["parameters"] + 16 * model["adapters"],
        "qlora": 4.127 / 8 * model["linear"] + 2 * (model["parameters"] - model["linear"]) + 16 * model["adapters"],
    }
    return per[method] / gpus + model["step"] + 0.8


def cards_for(draw: Draw, names: str, wanted: str, method: str, gpus: int) -> dict:
    """Cards on which the wanted model fits with this method, by 2 or 3%: fewer GB than GiB would seem to be needed."""
    models = [a_model(draw, name) for name in names.split()]
    need = next(needs(each, method, gpus) for each in models if each["name"] == wanted)
    gib = round(need * draw.uniform(1.02, 1.03) * 1e9 / 2**30, 2)
    return {"models": models, "gib": gib, "gpus": gpus}


def one_model(draw: Draw):
    for method in ("full", "lora", "qlora"):
        yield cards_for(draw, "8b", "8b", method, 1)


def small_and_large(draw: Draw):
    yield cards_for(draw, "1b 8b", "8b", "lora", 1)
    yield cards_for(draw, "3b 8b 70b", "8b", "lora", 2)
    yield cards_for(draw, "8b 70b 1b", "70b", "qlora", 2)


def too_large(draw: Draw):
    yield cards_for(draw, "70b 1b", "1b", "full", 1)
    yield cards_for(draw, "8b 3b", "3b", "qlora", 1)


def more_cards(draw: Draw):
    yield cards_for(draw, "30b 8b", "30b", "full", 8)
    yield cards_for(draw, "70b 30b 3b", "30b", "lora", 4)


def none_fits(draw: Draw):
    yield {"models": [a_model(draw, "30b"), a_model(draw, "70b")], "gib": draw.number(11.0, 13.0), "gpus": 1}


LARGEST = Task(
    id="13.6",
    title="The largest that fits",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=largest_model,
    also_correct=[largest_model_by_lists],
    properties=[
        Property("one model is trained in the first of the three ways that fits", one_model),
        Property("a larger model goes before a milder method", small_and_large),
        Property("a model that fits in no way leaves the place to a smaller one", too_large),
        Property("more cards share the states, and nothing else", more_cards),
        Property("where nothing fits, nothing is chosen", none_fits),
    ],
    mistakes=[
        Mistake(
            "GB and GiB are compared as if they were one",
            "The card is given in GiB of 2**30 bytes, what it must hold in GB of 1e9. A card of 24 GiB holds 25.8 GB.",
            "13, Twelve bytes per parameter",
            edit=("gib * 2**30 / 10**9", "gib"),
        ),
        Mistake(
            "the reference's copy is forgotten",
            "Where all weights are trained, DPO's reference is a second model: 2 bytes for each parameter on top of 12.",
            "13, Twelve bytes per parameter",
            edit=('12 * model["parameters"] + 2 * model["parameters"]', '12 * model["parameters"]'),
        ),
        Mistake(
            "LoRA is given a copy of the model as reference",
            "With the adapters off, the policy is the reference: the frozen weights serve both.",
            "13, When four is not twice two",
            edit=[('2 * model["parameters"] + adapters', '4 * model["parameters"] + adapters'), ("2 * outer + adapters", "2 * outer + adapters + 4.127 / 8 * model[\"linear\"] + 2 * outer")],
        ),
        Mistake(
            "adapters are counted as weights alone",
            "They are what is trained: beside its own 4 bytes each of their parameters has a gradient of 4 and two moments of 4.",
            "13, LoRA's surprise",
            edit=("16 * model", "4 * model"),
        ),
        Mistake(
            "adapters are counted with 12 bytes",
            "12 bytes are for 16-bit weights. Adapters are held in fp32: weight, gradient and two moments take 4 each.",
            "13, LoRA's surprise",
            edit=("16 * model", "12 * model"),
        ),
        Mistake(
            "embeddings are quantised too",
            "Only linear layers are stored in four bits. Embeddings, norms and adapters stay in their own type.",
            "13, QLoRA: four bits, measured",
            edit=("+ 2 * outer", "+ 4.127 / 8 * outer"),
        ),
        Mistake(
            "activations and logits are shared by the cards",
            "Each card has its own tokens. ZeRO-3 cuts states into pieces, and not what a step needs on top.",
            "13, Many GPUs",
            edit=('size / gpus + model["step"]', '(size + model["step"]) / gpus'),
        ),
        Mistake(
            "states are not shared by the cards",
            "ZeRO-3 cuts weights, gradients and moments into as many pieces as there are cards.",
            "13, Many GPUs",
            edit=("size / gpus", "size"),
        ),
        Mistake(
            "the CUDA context is forgotten",
            "The driver takes its 0.8 GB on every card before the first tensor comes.",
            "13, QLoRA: four bits, measured",
            edit=(" + 0.8", ""),
        ),
        Mistake(
            "the first model in the list that fits is taken",
            "The list has no order. Look at the largest model first.",
            "13, QLoRA: four bits, measured",
            function=first_that_fits,
        ),
        Mistake(
            "the mildest method decides, not the size of the model",
            "Asked for is the largest model that fits in any of the three ways. The way comes second.",
            "13, QLoRA: four bits, measured",
            function=least_change_first,
        ),
        Mistake(
            "four bits are used where 16 would fit",
            "For the model chosen, take the first of full, lora and qlora that fits.",
            "13, QLoRA: four bits, measured",
            edit=("in states.items():", "in reversed(states.items()):"),
        ),
    ],
    hints=[
        "Write down the states of one model in each of the three ways first, in bytes for each parameter: what is trained, what is frozen, and where is the reference?",
        "full: 12 and 2 for the reference; lora: 2, and 16 for each adapter parameter; qlora: 4.127 / 8 for each parameter in linear layers, 2 for the others, 16 for the adapters. Counts in billions give GB.",
        "On each card: states / gpus + step + 0.8, to compare with gib * 2**30 / 1e9. Go through the models from the largest on, and through the three ways in order.",
    ],
    rtol=2e-4,
    equivalent={"`gb <= gib * 2 ** 30 / 10 ** 9` -> `gb < gib * 2 ** 30 / 10 ** 9`": "no model needs exactly what a card holds"},
)  # fmt: skip


TASKS = [STATES, LOGITS, WAITING, TIMELINE, EAGER, LARGEST]
