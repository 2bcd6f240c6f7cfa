"""Tasks of lesson 14, speed and scale."""

import math

import numpy as np
import torch

from course_lib.grading.task import Draw, Mistake, Property, Task


def three_digits(value: float) -> float:
    return float(f"{value:.3g}")


# ---- 14.1


def audit(parameters, tokens_per_second, tokens, *, lora, reference, gpus, peak, price):
    """A reported run beside arithmetic: {"share": of the peak, "possible": True or False, "money": of the run}."""
    forward = 2
    backward = 2 if lora else 4
    again = 2 if reference else 0
    flops_per_second = (forward + backward + again) * parameters * tokens_per_second
    share = flops_per_second / (gpus * peak)
    speed = tokens_per_second / max(1, share)
    hours = tokens / speed / 3600
    return {"share": share, "possible": share <= 1, "money": hours * gpus * price}


def audit_by_gpu_seconds(n, reported, tokens, *, lora, reference, gpus, peak, price):
    per_token = n * {(False, False): 6, (False, True): 8, (True, False): 4, (True, True): 6}[lora, reference]
    least = per_token * tokens / peak  # GPU seconds that arithmetic alone takes
    claimed = gpus * tokens / reported
    return {"share": least / claimed, "possible": claimed >= least, "money": max(claimed, least) * price / 3600}


def a_report(draw: Draw, share: tuple[float, float], gpus=1, lora=False, reference=False) -> dict:
    """A run that reaches a share of the peak between two bounds."""
    parameters, peak = draw.number(1, 14, 1) * 1e9, draw.choice([312e12, 989.4e12, 2250e12])
    flops = 2 + (2 if lora else 4) + (2 if reference else 0)
    return {
        "parameters": parameters,
        "tokens_per_second": three_digits(draw.uniform(*share) * gpus * peak / (flops * parameters)),
        "tokens": draw.number(20, 900, 0) * 1e6,
        "lora": lora,
        "reference": reference,
        "gpus": gpus,
        "peak": peak,
        "price": draw.number(1.2, 4.8),
    }


def plain_sft(draw: Draw):
    return [a_report(draw, (0.45, 0.9)), a_report(draw, (0.15, 0.35))]


def other_methods(draw: Draw):
    return [a_report(draw, (0.15, 0.35), lora=lora, reference=reference)
            for lora, reference in ((False, True), (True, False), (True, True))]  # fmt: skip


def many_gpus(draw: Draw):
    return [a_report(draw, (0.45, 0.9), draw.randint(2, 7), reference=True), a_report(draw, (0.2, 0.5), 64)]


def impossible(draw: Draw):
    return [a_report(draw, (1.2, 1.9)), a_report(draw, (1.2, 1.9), 8, lora=True, reference=True)]


AUDIT = Task(
    id="14.1",
    title="Would you believe it?",
    kind="calculate",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=audit,
    also_correct=[audit_by_gpu_seconds],
    rtol=1e-4,
    properties=[
        Property("training all weights costs 6 FLOPs per weight and token", plain_sft),
        Property("a reference costs a forward pass more, and frozen weights spare half of the backward pass", other_methods),
        Property("the GPUs share the arithmetic, and each of them is paid", many_gpus),
        Property("a speed beyond the peak is impossible, and the peak's own speed sets the price", impossible),
    ],
    mistakes=[
        Mistake(
            "only the forward pass is counted",
            "2 FLOPs per weight and token are the forward pass. Backward asks for gradients of inputs and of weights, each as dear as a forward.",
            "14, Count the arithmetic",
            edit=("backward = 2 if lora else 4", "backward = 0"),
        ),
        Mistake(
            "LoRA is counted without a backward pass",
            "Frozen weights get no gradient, but the gradient goes *through* them to the adapters below: 2 FLOPs per weight and token, for that of the inputs.",
            "14, Claims to test",
            edit=("2 if lora else 4", "0 if lora else 4"),
        ),
        Mistake(
            "LoRA is counted like full training",
            "Frozen weights need no gradient of their own: of the two gradients in the backward pass only that of the inputs is left.",
            "14, Claims to test",
            edit=("2 if lora else 4", "4"),
        ),
        Mistake(
            "the reference is forgotten",
            "The reference reads each token too, in a forward pass of 2 FLOPs per weight.",
            "14, Claims to test",
            edit=("again = 2 if reference else 0", "again = 0"),
        ),
        Mistake(
            "the reference is counted like a trained model",
            "Nothing is learnt in the reference: it costs a forward pass and no backward pass.",
            "14, Claims to test",
            edit=("again = 2 if reference else 0", "again = 6 if reference else 0"),
        ),
        Mistake(
            "the speed of all GPUs is held against the peak of one",
            "The reported speed is that of all GPUs together, so the peak is theirs together too.",
            "14, Count the arithmetic",
            edit=("(gpus * peak)", "peak"),
        ),
        Mistake(
            "one GPU is paid, not all",
            "While a run lasts, each of its GPUs is rented: GPU hours are hours times GPUs.",
            "14, What it costs",
            edit=("hours * gpus * price", "hours * price"),
        ),
        Mistake(
            "the bill believes an impossible speed",
            "If the speed cannot have been reached, neither can its price. The least that the run costs follows from the peak.",
            "14, Claims to test",
            edit=("tokens_per_second / max(1, share)", "tokens_per_second"),
        ),
        Mistake(
            "what large runs reach is taken for what is possible",
            "40% of the peak is what large runs report. A run that reaches 60% is unusual, not impossible.",
            "14, On this machine",
            edit=("share <= 1", "share <= 0.4"),
        ),
        Mistake(
            "minutes are taken for hours",
            "Tokens over tokens per second are seconds, and an hour has 3600 of them.",
            "14, What it costs",
            edit=("3600", "60"),
        ),
    ],
    hints=[
        "How many FLOPs does one token cost per weight? Add up the forward pass, the backward pass, and the reference's pass where there is one.",
        "The share is FLOPs per token times tokens per second, over the peak of all GPUs together.",
        "A share of 1.5 means that the run took at least 1.5 times as long as reported. Then GPU hours times price.",
    ],
    equivalent={"`share <= 1` -> `share < 1`": "no drawn run reaches exactly the peak"},
)  # fmt: skip


# ---- 14.2


def decoding_step(weights, *, bytes_per_weight, cache_bytes, sequences, ridge):
    """{"intensity": of a decoding step in FLOPs per byte, "turns_at": sequences that make it equal the ridge, or None}."""
    flops = 2 * weights
    shared = bytes_per_weight * weights
    own = cache_bytes
    intensity = sequences * flops / (shared + sequences * own)
    turns_at = ridge * shared / (flops - ridge * own) if ridge * own < flops else None
    return {"intensity": intensity, "turns_at": turns_at}


def decoding_step_by_limit(n, *, bytes_per_weight, cache_bytes, sequences, ridge):
    most = math.inf if cache_bytes == 0 else 2 * n / cache_bytes  # the intensity of endlessly many sequences
    one = 2 / (bytes_per_weight / sequences + cache_bytes / n)
    if most <= ridge:
        return {"intensity": one, "turns_at": None}
    return {"intensity": one, "turns_at": bytes_per_weight / (2 / ridge - cache_bytes / n)}


def a_step(draw: Draw, width: float, crowding: tuple[float, float] | None, sequences=None) -> dict:
    """`crowding`: how long the cache takes to read, over how long a token takes to compute; None: no cache at all."""
    weights, ridge = draw.number(0.5, 9.0) * 1e9, draw.number(100, 300, 0)
    return {
        "weights": weights,
        "bytes_per_weight": width,
        "cache_bytes": three_digits(draw.uniform(*crowding) * 2 * weights / ridge) if crowding else 0.0,
        "sequences": sequences or draw.randint(3, 60),
        "ridge": ridge,
    }


def no_cache(draw: Draw):
    return [a_step(draw, width, None, sequences) for width, sequences in ((2.0, 1), (1.0, 1), (1.0, 16))]


def not_whole(draw: Draw):
    """The weights in 4 bits and no cache: decoding turns at a quarter of the ridge, which is no whole number."""
    for rest in (1, 3):
        yield a_step(draw, 0.5, None) | {"ridge": 4.0 * draw.randint(25, 70) + rest}


def fewer_bytes(draw: Draw):
    first = a_step(draw, 4.0, (0.2, 0.6))
    return [first | {"bytes_per_weight": width} for width in (4.0, 2.0, 1.0, 0.5)]


def a_longer_cache(draw: Draw):
    return [a_step(draw, draw.choice([1.0, 4.0]), crowding) for crowding in ((0.1, 0.3), (0.4, 0.6), (0.65, 0.8))]


def never(draw: Draw):
    return [a_step(draw, width, (1.3, 4.0)) for width in (2.0, 0.5)]


DECODING = Task(
    id="14.2",
    title="Where decoding turns",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=15,
    reference=decoding_step,
    also_correct=[decoding_step_by_limit],
    properties=[
        Property("without a cache, a step has 2 FLOPs per sequence for the bytes of a weight", no_cache),
        Property("the number at which it turns is not rounded", not_whole),
        Property("weights of half the bytes halve the number of sequences at which decoding turns", fewer_bytes),
        Property("a longer cache lowers the intensity and puts off the turn", a_longer_cache),
        Property("where a sequence's cache takes longer to read than its token to compute, decoding never turns", never),
    ],
    mistakes=[
        Mistake(
            "a multiplication and an addition are counted as one",
            "Each weight is multiplied and the product added up: 2 FLOPs per weight and token.",
            "14, Count the arithmetic",
            edit=("flops = 2 * weights", "flops = weights"),
        ),
        Mistake(
            "the cache is forgotten",
            "A decoding step reads the keys and values of all tokens before it, and in long contexts they weigh more than the weights.",
            "14, Count the bytes",
            edit=("own = cache_bytes", "own = 0.0"),
        ),
        Mistake(
            "the cache is read once for all sequences",
            "Weights are shared by all sequences; a cache is read for its own sequence alone, so its bytes grow with the batch.",
            "14, Llama-3-8B on an H100",
            edit=[("shared = bytes_per_weight * weights", "shared = bytes_per_weight * weights + cache_bytes"), ("own = cache_bytes", "own = 0.0")],
        ),
        Mistake(
            "the intensity counts the cache of one sequence",
            "Each sequence's keys and values are read for it alone: a step of n sequences reads n caches.",
            "14, Llama-3-8B on an H100",
            edit=("(shared + sequences * own)", "(shared + own)"),
        ),
        Mistake(
            "the weights are read once for each sequence",
            "One reading of the weights serves all sequences that are decoded together. That is the whole gain of company.",
            "14, The roofline",
            edit=("sequences * flops / (shared + sequences * own)", "flops / (shared + own)"),
        ),
        Mistake(
            "every weight has two bytes",
            "Two bytes are bf16. In 8 bits a weight has one, in 4 bits half of one.",
            "14, Count the bytes",
            edit=("shared = bytes_per_weight * weights", "shared = 2 * weights"),
        ),
        Mistake(
            "fewer bytes are taken for less arithmetic",
            "A weight of one byte is still multiplied and added. Only reading it costs half as much.",
            "14, Count the bytes",
            edit=("flops = 2 * weights", "flops = bytes_per_weight * weights"),
        ),
        Mistake(
            "the intensity is upside down",
            "Intensity is FLOPs per byte: much arithmetic for each byte means a high intensity.",
            "14, The roofline",
            edit=("sequences * flops / (shared + sequences * own)", "(shared + sequences * own) / (sequences * flops)"),
        ),
        Mistake(
            "the cache is forgotten where decoding turns",
            "With each sequence comes its own cache to read, so more of them are needed than the weights alone would say.",
            "14, Llama-3-8B on an H100",
            edit=("(flops - ridge * own)", "flops"),
        ),
        Mistake(
            "a number stands where decoding never turns",
            "A negative number of sequences means that no number is enough: each sequence brings more to read than to compute.",
            "14, Llama-3-8B on an H100",
            edit=(" if ridge * own < flops else None", ""),
        ),
        Mistake(
            "infinity stands where decoding never turns",
            "Where no number is enough, asked for is None. Infinity passes for a number in every comparison and sum that follows.",
            "14, Llama-3-8B on an H100",
            edit=("flops else None", "flops else math.inf"),
        ),
        Mistake(
            "the number of sequences is rounded",
            "The number is asked unrounded: it says where two lines cross, and that need not be at a whole sequence.",
            "14, Llama-3-8B on an H100",
            edit=("turns_at = ridge * shared / (flops - ridge * own)", "turns_at = round(ridge * shared / (flops - ridge * own))"),
        ),
        Mistake(
            "the number of sequences is rounded down",
            "With the whole number below, decoding still waits for bytes. The number is asked unrounded.",
            "14, Llama-3-8B on an H100",
            edit=("turns_at = ridge * shared / (flops - ridge * own)", "turns_at = math.floor(ridge * shared / (flops - ridge * own))"),
        ),
        Mistake(
            "the number of sequences is rounded up",
            "The next whole sequence is the first with which decoding is bound by arithmetic, but the number is asked unrounded.",
            "14, Llama-3-8B on an H100",
            edit=("turns_at = ridge * shared / (flops - ridge * own)", "turns_at = math.ceil(ridge * shared / (flops - ridge * own))"),
        ),
    ],
    hints=[
        "What is read once in a step, however many sequences are decoded? What is read once for each of them?",
        "FLOPs: 2 per weight and sequence. Bytes: all weights once, and one cache per sequence.",
        "Set the intensity equal to the ridge and solve for the number of sequences. When is there no positive solution?",
    ],
    equivalent={"`ridge * own < flops` -> `ridge * own <= flops`": "no drawn cache takes exactly as long to read as its token to compute"},
)  # fmt: skip


# ---- 14.3


def read_roofline(intensities, speeds, *, at, reached):
    """{"ridge": FLOPs per byte or None, "share": of the roof, "bound": "bandwidth" | "arithmetic" | "overhead"}."""
    per_byte = [speed / intensity for intensity, speed in zip(intensities, speeds)]
    slope, flat = max(per_byte), max(speeds)
    both = math.isclose(per_byte[0], per_byte[1], rel_tol=0.1) and math.isclose(speeds[-1], speeds[-2], rel_tol=0.1)
    roofs = {"bandwidth": slope * at, "arithmetic": flat}
    bound = min(roofs, key=roofs.get)
    share = reached / roofs[bound]
    return {"ridge": flat / slope if both else None, "share": share, "bound": "overhead" if share < 0.5 else bound}


def read_roofline_by_medians(x, y, *, at, reached):
    x, y = np.array(x), np.array(y)
    climbing, level = y / x > 0.9 * (y / x).max(), y > 0.9 * y.max()
    bandwidth, peak = np.median((y / x)[climbing]), np.median(y[level])
    share = reached / min(peak, bandwidth * at)
    bound = "bandwidth" if bandwidth * at < peak else "arithmetic"
    ridge = peak / bandwidth if climbing.sum() > 1 and level.sum() > 1 else None
    return {"ridge": ridge, "share": share, "bound": bound if share >= 0.5 else "overhead"}


def read_roofline_by_ends(x, y, *, at, reached):
    """From the outermost points alone: a straight line through the origin, and a level one."""
    bandwidth, peak = y[0] / x[0], y[-1]
    seen = [y[1] > 1.5 * y[0], y[-1] < 1.2 * y[-2]]
    roof = min(bandwidth * at, peak) if all(seen) else bandwidth * at if seen[0] else peak
    share = reached / roof
    name = "overhead" if 2 * reached < roof else "bandwidth" if roof == bandwidth * at else "arithmetic"
    return {"ridge": peak / bandwidth if all(seen) else None, "share": share, "bound": name}


def measured(draw: Draw, climbing: int, level: int, side: str, share: tuple[float, float]) -> dict:
    """So many points on each roof, within 0.5% of it; the workload lies between two points of one side."""
    bandwidth, peak = draw.number(2.8, 7.5), draw.number(150, 900, 0)
    ridge, x = peak / bandwidth, []
    low, high = ridge / draw.uniform(1.3, 1.6), ridge * draw.uniform(1.3, 1.6)
    for _ in range(climbing):
        x.insert(0, three_digits(low))
        low /= draw.uniform(1.8, 2.2)
    for _ in range(level):
        x.append(three_digits(high))
        high *= draw.uniform(1.8, 2.2)
    noisy = [min(peak, bandwidth * each) * draw.uniform(0.995, 1.005) for each in x]
    places = range(climbing - 1) if side == "bandwidth" else range(climbing, len(x) - 1)
    at = three_digits(1.3 * x[draw.choice(places)])
    reached = draw.uniform(*share) * min(peak, bandwidth * at)
    return {"intensities": x, "speeds": [float(f"{y:.4g}") for y in noisy], "at": at, "reached": three_digits(reached)}


WELL, BADLY = (0.65, 0.97), (0.08, 0.35)


def two_roofs(draw: Draw):
    for climbing, level in ((2, 2), (4, 3), (3, 4), (5, 5)):
        yield measured(draw, climbing, level, "bandwidth", WELL)
        yield measured(draw, climbing, level, "arithmetic", WELL)


def one_roof(draw: Draw):
    yield measured(draw, draw.randint(4, 6), 0, "bandwidth", WELL)
    yield measured(draw, 0, draw.randint(4, 6), "arithmetic", WELL)


def under_the_roof(draw: Draw):
    for side in ("bandwidth", "arithmetic"):
        yield measured(draw, 3, 3, side, BADLY)
    yield measured(draw, 4, 0, "bandwidth", BADLY)
    yield measured(draw, 0, 4, "arithmetic", BADLY)


ROOFLINE = Task(
    id="14.3",
    title="Read a roofline",
    kind="read the curve",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=read_roofline,
    also_correct=[read_roofline_by_medians, read_roofline_by_ends],
    rtol=0.05,
    properties=[
        Property("the ridge lies where the two roofs meet, and the lower roof bounds the workload", two_roofs),
        Property("a ridge is read only where both roofs were measured", one_roof),
        Property("a workload far under its roof is held up by neither", under_the_roof),
    ],
    mistakes=[
        Mistake(
            "a ridge is read where only one roof was measured",
            "If all points climb, or all are level, the ridge lies somewhere outside the curve. The curve cannot say where.",
            "14, The roofline",
            edit=("flat / slope if both else None", "flat / slope"),
        ),
        Mistake(
            "the ridge is the first point on the level roof",
            "The roofs meet between two points: the first level one only lies somewhere beyond the ridge.",
            "14, The roofline",
            edit=("flat / slope if both", "next(x for x, y in zip(intensities, speeds) if y > 0.9 * flat) if both"),
        ),
        Mistake(
            "the ridge is the last point on the slope",
            "The roofs meet between two points: the last climbing one lies before the ridge.",
            "14, The roofline",
            edit=("flat / slope if both", "[x for x, y in zip(intensities, per_byte) if y > 0.9 * slope][-1] if both"),
        ),
        Mistake(
            "the ridge is upside down",
            "The ridge is FLOP/s over bytes per second, so it comes in FLOPs per byte like the intensities.",
            "14, The roofline",
            edit=("flat / slope if both", "slope / flat if both"),
        ),
        Mistake(
            "the bandwidth is a mean over all points",
            "Speed over intensity is the bandwidth only on the slope. On the level roof it falls with every point.",
            "14, The roofline",
            edit=("slope, flat = max(per_byte), max(speeds)", "slope, flat = sum(per_byte) / len(per_byte), max(speeds)"),
        ),
        Mistake(
            "the share is always that of the peak",
            "Below the ridge the roof is bandwidth times intensity. A workload there cannot reach the peak, however good it is.",
            "14, The roofline",
            edit=("reached / roofs[bound]", "reached / flat"),
        ),
        Mistake(
            "the higher roof decides",
            "Both roofs hold at once, so the lower of the two is the limit.",
            "14, The roofline",
            edit=("min(roofs, key", "max(roofs, key"),
        ),
        Mistake(
            "nothing is ever held up by overhead",
            "A roofline is the best that is possible. Far below it something else takes the time: launches, Python, small operations.",
            "14, On this machine",
            edit=("\"overhead\" if share < 0.5 else bound", "bound"),
        ),
    ],
    hints=[
        "Divide each speed by its intensity. On the slope that is the same number again and again: which one?",
        "Bandwidth from the climbing points, peak from the level ones; the ridge is peak over bandwidth. Are there at least two points of each kind?",
        "The roof over the workload is the smaller of peak and bandwidth times `at`. Compare `reached` with it first.",
    ],
    equivalent={"`share < 0.5` -> `share <= 0.5`": "no drawn workload reaches exactly half of its roof"},
)  # fmt: skip


# ---- 14.4


def decoded_per_second(lengths, finished, started):
    """Tokens per second that decoding alone gives, all replies together; a float.

    lengths: a list with the number of new tokens of each reply. finished: a list of clock times in
    seconds, when all first tokens were there, when all second ones were there, and so on; as many
    as the longest reply has tokens, at least two. started: the clock before the prefill.
    """
    tokens = sum(lengths) - len(lengths)
    seconds = finished[-1] - finished[0]
    return tokens / seconds


def decoded_per_second_by_steps(lengths, finished, started):
    lengths = np.array(lengths)
    steps = np.diff(np.array(finished))
    running = [(lengths >= place).sum() for place in range(2, len(finished) + 1)]
    return sum(running) / steps.sum()


def a_generation(draw: Draw, lengths: list[int], prefill: tuple[float, float]) -> dict:
    started = draw.number(5, 60)
    clock, finished = started + draw.number(*prefill), []
    for _ in range(max(lengths)):
        finished.append(round(clock, 2))
        clock += draw.number(0.05, 0.4)
    return {"lengths": lengths, "finished": finished, "started": started}


def one_reply(draw: Draw):
    return [a_generation(draw, [length], (0.5, 1.5)) for length in (3, 5)]


def slow_prefill(draw: Draw):
    return [a_generation(draw, [length] * count, (5.0, 20.0)) for length, count in ((3, 2), (4, 3), (3, 8))]


def uneven_replies(draw: Draw):
    for count in (2, 3, 5):
        yield a_generation(draw, draw.sample(range(2, 9), count), (0.5, 3.0))


def ended_at_once(draw: Draw):
    yield a_generation(draw, [draw.randint(3, 5), 1], (0.5, 3.0))


MEASURED = Task(
    id="14.4",
    title="Slow whatever the batch",
    kind="fix the bug",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=decoded_per_second,
    also_correct=[decoded_per_second_by_steps],
    properties=[
        Property("one reply's speed is that of the tokens after its first", one_reply),
        Property("a slow prefill changes nothing", slow_prefill),
        Property("a reply that has ended gives no more tokens", uneven_replies),
        Property("a reply of one token needs no decoding", ended_at_once),
    ],
    mistakes=[
        Mistake(
            "the prefill is inside",
            "Time and tokens begin with the prefill, which reads whole prompts. With long prompts and short replies the figure is the prefill's, whatever decoding does.",
            "14, Count the bytes",
            edit=[("sum(lengths) - len(lengths)", "sum(lengths)"), ("finished[-1] - finished[0]", "finished[-1] - started")],
        ),
        Mistake(
            "the time still holds the prefill",
            "Decoding begins when the first tokens are there, not when the prompts go in.",
            "14, Count the bytes",
            edit=("finished[-1] - finished[0]", "finished[-1] - started"),
        ),
        Mistake(
            "the first tokens still count",
            "The prefill gives each reply its first token: it is there before the decoding clock starts.",
            "14, Count the bytes",
            edit=("sum(lengths) - len(lengths)", "sum(lengths)"),
        ),
        Mistake(
            "replies that have ended are counted on",
            "A short reply fills the rest of its row with padding. Padding is computed, but it is no token that anybody reads.",
            "14, Thousands of GPUs",
            edit=("sum(lengths) - len(lengths)", "(len(finished) - 1) * len(lengths)"),
        ),
        Mistake(
            "steps per second, not tokens",
            "One step gives a token to each reply that still runs. All of them count: that is what company gains.",
            "14, On this machine",
            edit=("sum(lengths) - len(lengths)", "len(finished) - 1"),
        ),
        Mistake(
            "the mean over the replies, not their sum",
            "Tokens per second of all replies together are wanted, as the lesson draws them.",
            "14, On this machine",
            edit=("tokens / seconds", "tokens / len(lengths) / seconds"),
        ),
        Mistake(
            "seconds per token, not tokens per second",
            "A speed has the time below the line.",
            "14, On this machine",
            edit=("tokens / seconds", "seconds / tokens"),
        ),
        Mistake(
            "the first step is lost",
            "Decoding runs from the first tokens to the last; the second tokens come after one whole step of it.",
            "14, On this machine",
            edit=("finished[-1] - finished[0]", "finished[-1] - finished[1]"),
        ),
    ],
    hints=[
        "Which of a reply's tokens does the prefill give? When is it there?",
        "Both lines need mending: one counts tokens that decoding did not give, the other seconds that it did not take.",
    ],
)  # fmt: skip


# ---- 14.5


def tonight(methods, *, parameters, tokens, memory_gib, hours, flops, decoding):
    """The first method that fits the memory and the night, and what rules out others.

    methods: a list of {"name", "trained", "frozen", "update_epochs", "decoded"}. Returns {"chosen": name or None,
    "ruled_out": {name: {"GB": missing, "hours": missing}}}, each with the limits that it breaks and no others.
    """
    chosen, ruled_out = None, {}
    for method in methods:
        states = (12 * method["trained"] + 2 * method["frozen"]) * parameters
        per_weight = 6 * method["trained"] * method["update_epochs"] + 2 * method["frozen"]
        passes = per_weight * parameters * tokens / flops
        sampling = method["decoded"] * tokens / decoding
        missing = {"GB": (states - memory_gib * 2**30) / 10**9, "hours": (passes + sampling) / 3600 - hours}
        broken = {what: much for what, much in missing.items() if much > 0}
        if broken:
            ruled_out[method["name"]] = broken
        elif chosen is None:
            chosen = method["name"]
    return {"chosen": chosen, "ruled_out": ruled_out}


def tonight_by_tables(methods, *, parameters, tokens, memory_gib, hours, flops, decoding):
    names = [m["name"] for m in methods]
    trained, frozen, epochs, decoded = (
        np.array([m[k] for m in methods], float) for k in ("trained", "frozen", "update_epochs", "decoded")
    )
    gigabytes = parameters * (12 * trained + 2 * frozen) / 1e9 - memory_gib * 1.073741824
    late = tokens * (parameters * (6 * trained * epochs + 2 * frozen) / flops + decoded / decoding) / 3600 - hours
    good = [name for name, a, b in zip(names, gigabytes, late) if a <= 0 and b <= 0]
    ruled_out = {}
    for name, a, b in zip(names, gigabytes, late):
        if name not in good:
            ruled_out[name] = ({"GB": a} if a > 0 else {}) | ({"hours": b} if b > 0 else {})
    return {"chosen": (good + [None])[0], "ruled_out": ruled_out}


def tonight_the_fastest(methods, *, parameters, tokens, memory_gib, hours, flops, decoding):
    chosen, ruled_out = (math.inf, None), {}
    for method in methods:
        states = (12 * method["trained"] + 2 * method["frozen"]) * parameters
        per_weight = 6 * method["trained"] * method["update_epochs"] + 2 * method["frozen"]
        seconds = per_weight * parameters * tokens / flops + method["decoded"] * tokens / decoding
        missing = {"GB": (states - memory_gib * 2**30) / 1e9, "hours": seconds / 3600 - hours}
        broken = {what: much for what, much in missing.items() if much > 0}
        if broken:
            ruled_out[method["name"]] = broken
        else:
            chosen = min(chosen, (seconds, method["name"]))
    return {"chosen": chosen[1], "ruled_out": ruled_out}


def menu(draw: Draw) -> dict[str, dict]:
    """The methods, the fastest first; no two hold equally much."""
    rows = {"SimPO": (1, 0, 1, 0.0), "DPO": (1, 1, 1, 0.0), "RLOO": (1, 2, 1, draw.choice([0.25, 0.5])),
            "PPO": (2, 2, draw.choice([2, 3, 4]), draw.choice([0.5, 0.75]))}  # fmt: skip
    keys = ("trained", "frozen", "update_epochs", "decoded")
    return {name: {"name": name} | dict(zip(keys, row, strict=True)) for name, row in rows.items()}


def a_night(draw: Draw, order: str, largest: str, slowest: str, tight=1.0, sampler="fast") -> dict:
    """Limits under which `largest` and all smaller methods fit the memory, and `slowest` and all faster ones the night.

    A slow sampler takes longer than all passes together.
    """
    parameters, tokens = draw.number(2, 9, 1) * 1e9, draw.number(60, 200, 0) * 1e6
    flops, decoding = draw.number(200, 400, 0) * 1e12, draw.number(4000, 9000, 0)
    if sampler == "slow":
        parameters, tokens = draw.number(1, 2, 1) * 1e9, draw.number(20, 60, 0) * 1e6
        flops, decoding = draw.number(800, 1000, 0) * 1e12, draw.number(1000, 2000, 0)
    table = menu(draw)
    needs = {}
    for name, m in table.items():
        gib = (12 * m["trained"] + 2 * m["frozen"]) * parameters / 2**30
        per_weight = 6 * m["trained"] * m["update_epochs"] + 2 * m["frozen"]
        needs[name] = gib, tokens * (per_weight * parameters / flops + m["decoded"] / decoding) / 3600
    limits = []
    for place, last in enumerate((largest, slowest)):
        most = needs[last][place]
        more = min([need[place] for need in needs.values() if need[place] > most], default=2 * most)
        limits.append(round(most + 0.5 * (more - most), 2))
    if tight != 1.0:  # the largest method just fits
        limits[0] = round(needs[largest][0] * tight, 2)
    return {"methods": [table[name] for name in order.split()], "parameters": parameters, "tokens": tokens,
            "memory_gib": limits[0], "hours": limits[1], "flops": flops, "decoding": decoding}  # fmt: skip


def all_fit(draw: Draw):
    for order in ("DPO SimPO", "PPO RLOO DPO SimPO", "SimPO DPO PPO"):
        yield a_night(draw, order, "PPO", "PPO")


def memory_decides(draw: Draw):
    yield a_night(draw, "DPO SimPO", "SimPO", "PPO")
    yield a_night(draw, "PPO RLOO DPO SimPO", "DPO", "PPO")
    yield a_night(draw, "RLOO SimPO DPO", "DPO", "PPO", tight=1.03)


def the_night_decides(draw: Draw):
    yield a_night(draw, "RLOO DPO", "PPO", "DPO")
    yield a_night(draw, "PPO RLOO SimPO DPO", "PPO", "RLOO")
    yield a_night(draw, "PPO DPO", "PPO", "SimPO")
    yield a_night(draw, "RLOO DPO", "PPO", "DPO", sampler="slow")
    yield a_night(draw, "RLOO PPO DPO", "PPO", "RLOO", sampler="slow")


def behind_the_chosen(draw: Draw):
    yield a_night(draw, "SimPO PPO", "DPO", "PPO")
    yield a_night(draw, "DPO RLOO SimPO", "PPO", "DPO")
    yield a_night(draw, "PPO SimPO DPO RLOO", "SimPO", "RLOO")


def both_or_nothing(draw: Draw):
    yield a_night(draw, "PPO RLOO", "DPO", "DPO")
    yield a_night(draw, "PPO RLOO DPO", "RLOO", "SimPO")


TONIGHT = Task(
    id="14.5",
    title="One GPU, one night",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=tonight,
    also_correct=[tonight_by_tables],
    properties=[
        Property("where all fit, the first in the list is chosen", all_fit),
        Property("a method whose states are too large is ruled out, by so many GB", memory_decides),
        Property("a method that takes too long is ruled out, by so many hours", the_night_decides),
        Property("a method that does not fit is ruled out behind the chosen one as well", behind_the_chosen),
        Property("a method can break both limits, and no method may be left", both_or_nothing),
    ],
    mistakes=[
        Mistake(
            "gradients and moments are forgotten",
            "A trained parameter takes 12 bytes: 2 for the weight, 2 for its gradient, and 8 for AdamW's two moments.",
            "13, Twelve bytes per parameter",
            edit=("12 * method[\"trained\"] + 2", "2 * method[\"trained\"] + 2"),
        ),
        Mistake(
            "the frozen models get gradients and moments too",
            "A frozen model is its weights and no more: 2 bytes per parameter.",
            "13, Twelve bytes per parameter",
            edit=("+ 2 * method[\"frozen\"]) * parameters", "+ 12 * method[\"frozen\"]) * parameters"),
        ),
        Mistake(
            "GiB are taken for GB",
            "A GiB is 2**30 bytes, 7% more than a GB. The card's memory is given in GiB, what is missing is asked in GB.",
            "13, Twelve bytes per parameter",
            edit=("memory_gib * 2**30", "memory_gib * 1e9"),
        ),
        Mistake(
            "decoding is forgotten",
            "A method that learns from its own replies must write them first, token by token.",
            "14, A whole step",
            edit=("sampling = method[\"decoded\"] * tokens / decoding", "sampling = 0.0"),
        ),
        Mistake(
            "the longer of passes and decoding counts, not their sum",
            "A rollout is decoded first, and then the models pass over it: the hours add up.",
            "14, A whole step",
            edit=("(passes + sampling) / 3600", "max(passes, sampling) / 3600"),
        ),
        Mistake(
            "the prompts are decoded too",
            "Prompts are given: they go through at once, in the prefill. Only the share `decoded` of the tokens is written one by one.",
            "14, Count the bytes",
            edit=("method[\"decoded\"] * tokens", "(method[\"decoded\"] > 0) * tokens"),
        ),
        Mistake(
            "the update epochs are forgotten",
            "Each epoch takes the whole rollout through the trained models once more, forward and backward.",
            "14, Claims to test",
            edit=(" * method[\"update_epochs\"]", ""),
        ),
        Mistake(
            "the frozen models read again in each update epoch",
            "The reward model and the reference read a rollout once. Their numbers are kept for all epochs.",
            "14, A whole step",
            edit=("+ 2 * method[\"frozen\"]\n", "+ 2 * method[\"frozen\"] * method[\"update_epochs\"]\n"),
        ),
        Mistake(
            "each update epoch samples anew",
            "Epochs pass over one and the same rollout, which is sampled once, however often it is used.",
            "14, Claims to test",
            edit=("method[\"decoded\"] * tokens", "method[\"update_epochs\"] * method[\"decoded\"] * tokens"),
        ),
        Mistake(
            "the frozen models read for nothing",
            "A frozen model has no backward pass, but its forward pass costs 2 FLOPs per weight and token.",
            "14, Claims to test",
            edit=("+ 2 * method[\"frozen\"]\n", "\n"),
        ),
        Mistake(
            "nothing is said of the methods behind the chosen one",
            "Every method that does not fit is to be listed, whatever its place. The list is read to its end, also when the choice is made.",
            "14, What it costs",
            edit=('            chosen = method["name"]\n', '            chosen = method["name"]\n            break\n'),
        ),
        Mistake(
            "the fastest is chosen, not the first",
            "The list stands in the order of preference: the limits say what is possible, and the order what is wanted.",
            "14, What it costs",
            function=tonight_the_fastest,
        ),
    ],
    hints=[
        "Two numbers for each method: the bytes of its states, and its hours. Which of them exceeds its limit, and by how much?",
        "States: 12 bytes per trained and 2 per frozen parameter. FLOPs per weight and token: 6 per trained model and epoch, 2 per frozen model.",
        "Hours: FLOPs over `flops`, plus the decoded tokens over `decoding`, both in seconds. memory_gib * 2**30 are bytes.",
    ],
    equivalent={"`much > 0` -> `much >= 0`": "no drawn method lies exactly on a limit"},
)  # fmt: skip


# ---- 14.6


def stragglers(lengths, *, together, longest):
    """What a cluster's decoding costs: {"steps": decoding steps, "idle": share of the GPUs' time, "spoiled": share of the replies}.

    lengths: tensor (G, N), the tokens that each of the N replies of G GPUs would have without a cut-off.
    """
    kept = lengths.clamp(max=longest)
    batches = kept.reshape(len(kept), -1, together)
    own = batches.amax(-1).sum(-1)
    idle = 1 - own.mean() / own.max()
    spoiled = (lengths > longest).float().mean()
    return {"steps": own.max(), "idle": idle, "spoiled": spoiled}


def stragglers_in_loops(lengths, *, together, longest):
    own, cut = [], 0
    for row in lengths.tolist():
        own.append(sum(min(max(row[i : i + together]), longest) for i in range(0, len(row), together)))
        cut += sum(length > longest for length in row)
    waited = sum(max(own) - each for each in own)
    return {"steps": max(own), "idle": waited / (len(own) * max(own)), "spoiled": cut / lengths.numel()}


def a_cluster(draw: Draw, gpus: int, batches: int, together: int, whole: float) -> dict:
    """Replies of which about the share `whole` is no longer than the cut-off; no two are equally long."""
    count = gpus * batches * together
    lengths = [float(2 * each) for each in draw.sample(range(5, 200), count)]
    place = max(1, round(whole * count))
    longest = sorted(lengths)[place - 1] + 1 if place < count else max(lengths) + 2 * draw.randint(3, 25) + 1
    tensor = torch.tensor(lengths).reshape(gpus, batches * together)
    return {"lengths": tensor, "together": together, "longest": longest}


def a_changing_laggard(draw: Draw, gpus: int, batches: int, together: int, whole: float) -> dict:
    """A cluster in which not the same GPU is the slowest one in every batch, cut off or not."""
    while True:
        found = a_cluster(draw, gpus, batches, together, whole)
        longest = found["lengths"].reshape(gpus, batches, together).amax(-1)
        by_batch = longest.clamp(max=found["longest"]).amax(0).sum()
        if by_batch > 1.03 * longest.clamp(max=found["longest"]).sum(-1).max():
            return found


def nobody_to_wait_for(draw: Draw):
    return [a_cluster(draw, 1, 1, 3, 1.0), a_cluster(draw, 1, 2, 2, 1.0)]


def without_a_cut(draw: Draw):
    first = [a_cluster(draw, *sizes, 1.0) for sizes in ((2, 1, 2), (2, 2, 3))]
    return [*first, a_changing_laggard(draw, 2, 2, 2, 1.0), a_changing_laggard(draw, 3, 3, 2, 1.0)]


def with_a_cut(draw: Draw):
    return [a_cluster(draw, *sizes, whole) for sizes, whole in (((2, 2, 2), 0.6), ((3, 2, 3), 0.8), ((4, 4, 2), 0.6))]


def on_the_cut(draw: Draw):
    for sizes in ((2, 1, 2), (3, 2, 3)):
        found = a_cluster(draw, *sizes, 1.0)
        places = found["lengths"].flatten().sort().values
        yield found | {"longest": places[-2].item()}


STRAGGLERS = Task(
    id="14.6",
    title="Waiting for the longest reply",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=stragglers,
    also_correct=[stragglers_in_loops],
    properties=[
        Property("a GPU that is alone waits for nobody", nobody_to_wait_for),
        Property("a batch takes as long as its longest reply, a step as long as its slowest GPU", without_a_cut),
        Property("a cut-off shortens the step and spoils what it cuts", with_a_cut),
        Property("a reply as long as the cut-off is whole", on_the_cut),
    ],
    mistakes=[
        Mistake(
            "a GPU decodes all its replies at once",
            "A GPU decodes `together` replies, then the next: each batch lasts as long as its own longest reply, and the times add up.",
            "14, Thousands of GPUs",
            edit=("reshape(len(kept), -1, together)", "reshape(len(kept), 1, -1)"),
        ),
        Mistake(
            "batches are formed across, not in order",
            "The first `together` replies of a row are decoded together, then the next ones.",
            "14, Thousands of GPUs",
            edit=("reshape(len(kept), -1, together)", "reshape(len(kept), together, -1).mT"),
        ),
        Mistake(
            "a batch takes as long as its mean reply",
            "Sequences that are decoded together take as long as the longest of them: the others' rows run empty.",
            "14, Thousands of GPUs",
            edit=("amax(-1).sum(-1)", "mean(-1).sum(-1)"),
        ),
        Mistake(
            "replies are decoded one after the other",
            "A decoding step gives a token to every reply of the batch, so lengths within a batch do not add up.",
            "14, Count the bytes",
            edit=("amax(-1).sum(-1)", "sum(-1).sum(-1)"),
        ),
        Mistake(
            "the mean GPU ends the step",
            "All must meet to add up their gradients, so the step ends with the slowest GPU.",
            "14, Thousands of GPUs",
            edit=("\"steps\": own.max()", "\"steps\": own.mean()"),
        ),
        Mistake(
            "the GPUs meet after each batch",
            "They meet once, when all batches are done: a GPU that is slow in one batch may be quick in the next. Meeting each time, they would wait for the longest reply of every batch.",
            "14, Thousands of GPUs",
            edit=[("1 - own.mean() / own.max()", "1 - own.mean() / batches.amax((0, 2)).sum()"), ("\"steps\": own.max()", "\"steps\": batches.amax((0, 2)).sum()")],
        ),
        Mistake(
            "the steps of all GPUs are added up",
            "GPUs decode side by side: the step takes as long as the slowest of them, not as all one after the other.",
            "14, Thousands of GPUs",
            edit=("\"steps\": own.max()", "\"steps\": own.sum()"),
        ),
        Mistake(
            "the waiting is measured against the mean GPU",
            "A share of the step has the step's time below the line: that of the slowest GPU.",
            "14, Thousands of GPUs",
            edit=("1 - own.mean() / own.max()", "own.max() / own.mean() - 1"),
        ),
        Mistake(
            "the share at work is given, not the idle one",
            "What the mean GPU needs, over the step, is the share of the time that GPUs work. The rest of it they wait.",
            "14, Thousands of GPUs",
            edit=("1 - own.mean() / own.max()", "own.mean() / own.max()"),
        ),
        Mistake(
            "the cut-off is forgotten in the lengths",
            "Sampling stops at the cut-off: no reply takes more decoding steps than that.",
            "14, Thousands of GPUs",
            edit=("lengths.clamp(max=longest)", "lengths"),
        ),
        Mistake(
            "a reply as long as the cut-off counts as spoiled",
            "A reply that ends just there has said all that it had to say.",
            "14, Thousands of GPUs",
            edit=("lengths > longest", "lengths >= longest"),
        ),
        Mistake(
            "spoiled are the tokens that are cut away, not the replies",
            "A reply without its end is spoiled whole, be it one token short or a hundred.",
            "14, Thousands of GPUs",
            edit=("(lengths > longest).float().mean()", "1 - kept.sum() / lengths.sum()"),
        ),
    ],
    hints=[
        "First write what one GPU needs: cut its row into batches of `together`, take each one's longest reply, and add up.",
        "Cut the lengths first, with clamp. The step is the maximum over the GPUs of what each needs.",
        "A GPU idles for (slowest - own) / slowest of the step: take the mean over the GPUs. Spoiled are replies strictly longer than the cut-off.",
    ],
)  # fmt: skip


TASKS = [AUDIT, DECODING, ROOFLINE, MEASURED, TONIGHT, STRAGGLERS]
