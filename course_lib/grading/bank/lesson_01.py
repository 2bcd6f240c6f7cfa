"""Tasks of lesson 01, Log-probabilities and SFT."""

import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 01.1


def token_logps(logits, ids):
    """ln p of each token but the first, given those before it.

    logits: (B, T, V); ids: (B, T). Returns (B, T - 1), in nats.
    """
    logits = logits[:, :-1]
    targets = ids[:, 1:]
    logps = logits.log_softmax(-1)
    return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def token_logps_one_by_one(logits, ids):
    rows = []
    for b in range(ids.shape[0]):
        rows.append(
            torch.stack([logits[b, t, ids[b, t + 1]] - logits[b, t].logsumexp(0) for t in range(ids.shape[1] - 1)])
        )
    return torch.stack(rows)


def token_logps_by_cross_entropy(logits, ids):
    return -F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def rows_of_tokens(draw: Draw, rows: int, columns: int, words: int) -> torch.Tensor:
    """Ids in which a row says no word twice."""
    return torch.tensor([draw.sample(range(words), columns) for _ in range(rows)])


def text(draw: Draw, rows: int, columns: int, words: int) -> dict:
    return {"logits": draw.distinct(rows, columns, words), "ids": rows_of_tokens(draw, rows, columns, words)}


def one_text(draw: Draw):
    return [text(draw, 1, columns, 5) for columns in (3, 4)]


def some_texts(draw: Draw):
    return [text(draw, rows, columns, 5) for rows, columns in ((2, 3), (3, 4))]


def sure_of_another(draw: Draw):
    """All but word 0 is so unlikely that its probability is 0 in fp32, and word 0 is never said."""
    ours = text(draw, 1, 3, 4)
    ours["logits"][:, :, 0] += 150.0
    yield ours | {"ids": torch.tensor([draw.sample([1, 2, 3], 3)])}


TOKENS = Task(
    id="01.1",
    title="Which row speaks of which token",
    kind="fix the bug",
    points=2,
    difficulty="easy",
    minutes=5,
    reference=token_logps,
    also_correct=[token_logps_one_by_one, token_logps_by_cross_entropy],
    gradient_of=("logits",),
    properties=[
        Property("one text gets the right log-probabilities and gradients", one_text),
        Property("so do several texts", some_texts),
        Property("tokens that are all but impossible do not break it", sure_of_another),
    ],
    mistakes=[
        Mistake(
            "each row is asked for its own token",
            "Row t has read token t and speaks about token t + 1. Asked for token t, it says how likely that token is to come twice in a row.",
            "01, From logits to the log-probability of a text",
            edit=("logits[:, :-1]", "logits[:, 1:]"),
        ),
        Mistake(
            "each row is asked for the token before its own",
            "The shift goes the wrong way: row t speaks about token t + 1, not t - 1.",
            "01, From logits to the log-probability of a text",
            edit=[("logits[:, :-1]", "logits[:, 1:]"), ("ids[:, 1:]", "ids[:, :-1]")],
        ),
        Mistake(
            "shifted twice",
            "Each row is asked for the token after next. That happens where ids that were shifted already are shifted once more.",
            "01, From logits to the log-probability of a text",
            edit=[("logits[:, :-1]", "logits[:, :-2]"), ("ids[:, 1:]", "ids[:, 2:]")],
        ),
        Mistake(
            "the first token gets a column too",
            "Nothing predicts the first token. A 0 in its place would say that it was certain; here its column is left out.",
            "01, From logits to the log-probability of a text",
            edit=("return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1)", "return F.pad(logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1), (1, 0))"),
        ),
        Mistake(
            "probabilities, not their logarithms",
            "Probabilities of a chain multiply. It is their logarithms that may be added.",
            "01, From logits to the log-probability of a text",
            edit=("log_softmax(-1)", "softmax(-1)"),
        ),
        Mistake(
            "the logits as they are",
            "A logit means nothing by itself: only after the softmax do a row's entries add up to 1.",
            "01, A model is a table of next-token probabilities",
            edit=("logits.log_softmax(-1)", "logits"),
        ),
        Mistake(
            "the softmax runs over the places, not the vocabulary",
            "The probabilities at one place, over all tokens that could come next, add up to 1. That is the last axis.",
            "01, A model is a table of next-token probabilities",
            edit=("log_softmax(-1)", "log_softmax(1)"),
        ),
        Mistake(
            "the logarithm of a softmax that underflows",
            "A very unlikely token has the probability 0 in fp32, and its logarithm is minus infinity. `log_softmax` does both at once.",
            "01, From logits to the log-probability of a text",
            edit=("log_softmax(-1)", "softmax(-1).log()"),
        ),
        Mistake(
            "the loss, not the log-probability",
            "The negative log-likelihood is what training lowers. A log-probability is never above 0.",
            "01, The loss of SFT",
            edit=("return logps", "return -logps"),
        ),
        Mistake(
            "each row but the last is asked for its own token",
            "Both lose their last entry, so row t still stands beside token t, which it has read already. It is the tokens' first that must go.",
            "01, From logits to the log-probability of a text",
            edit=("ids[:, 1:]", "ids[:, :-1]"),
        ),
    ],
    hints=[
        "After `a banana is` the model's row speaks about `yellow`. Which of the two slices should drop its last entry, and which its first?",
        "Row t goes with token t + 1: drop the last row of the logits and the first token.",
    ],
    equivalent={"`(:, :-1)` -> `(:, :)`": "gather reads no further than its index goes, and that ends one row earlier"},
)  # fmt: skip


# ---- 01.2


def reply_logps(logits, ids, mask, *, average):
    """ln p of each row's reply, its sum or its mean per token.

    logits: (B, T, V); ids: (B, T); mask: (B, T), True on the reply. Returns (B,), in nats.
    """
    logps = logits[:, :-1].log_softmax(-1)
    logps = logps.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    scored = mask[:, 1:]
    total = (logps * scored).sum(-1)
    return total / scored.sum(-1) if average else total


def reply_logps_token_by_token(logits, ids, mask, *, average):
    sums = []
    for row, said, counts in zip(logits, ids, mask):
        found = [row[t - 1, said[t]] - row[t - 1].logsumexp(0) for t in range(1, len(said)) if counts[t]]
        sums.append(sum(found) / (len(found) if average else 1))
    return torch.stack(sums)


def reply_logps_by_labels(logits, ids, mask, *, average):
    labels = ids.masked_fill(~mask, -100)
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return -losses.sum(1) / (mask.sum(1) if average else 1)


def batch_of(draw: Draw, rows: list[tuple[int, int]], width: int, average: bool) -> dict:
    """Rows of (prompt's length, reply's length), and padding up to the width."""
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (prompt, reply) in zip(mask, rows):
        row[prompt : prompt + reply] = True
    return text(draw, len(rows), width, width + 1) | {"mask": mask, "average": average}


def one_sum(draw: Draw):
    return [batch_of(draw, [row], 5, False) for row in ((2, 2), (1, 3))]


def some_sums(draw: Draw):
    return [batch_of(draw, [(2, 3), (2, 2)], 6, False), batch_of(draw, [(1, 4), (2, 2), (3, 3)], 6, False)]


def one_mean(draw: Draw):
    return [batch_of(draw, [row], 5, True) for row in ((2, 2), (1, 3))]


def some_means(draw: Draw):
    return [batch_of(draw, [(2, 3), (2, 2)], 6, True), batch_of(draw, [(1, 4), (2, 2), (3, 3)], 6, True)]


REPLY = Task(
    id="01.2",
    title="The log-probability of a reply",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=10,
    reference=reply_logps,
    also_correct=[reply_logps_token_by_token, reply_logps_by_labels],
    gradient_of=("logits",),
    properties=[
        Property("one reply gets its sum, without prompt and padding", one_sum),
        Property("several replies of different lengths get their sums", some_sums),
        Property("one reply gets its mean per token", one_mean),
        Property("several replies get their means, each over its own tokens", some_means),
    ],
    mistakes=[
        Mistake(
            "prompt and padding are counted",
            "Without the mask every token of the row counts as if the model had said it.",
            "01, Only the reply counts",
            edit=("scored = mask[:, 1:]", "scored = torch.ones_like(mask[:, 1:])"),
        ),
        Mistake(
            "the prompt is counted",
            "The model is judged by what it answers, not by how well it foresees the question.",
            "01, Only the reply counts",
            edit=("scored = mask[:, 1:]", "scored = mask[:, 1:].flip(1).cumsum(1).flip(1) > 0"),
        ),
        Mistake(
            "the padding is counted",
            "Behind the reply's end there is only what fills up the batch: the number would depend on how long the neighbours are.",
            "01, A batch",
            edit=("scored = mask[:, 1:]", "scored = mask[:, 1:].cumsum(1) > 0"),
        ),
        Mistake(
            "the mask is not shifted with the tokens",
            "The log-probabilities begin with token 1 (counting from 0), and so must the mask. Else the reply's first token is left out, and what stands behind its end is counted.",
            "01, From logits to the log-probability of a text",
            edit=("scored = mask[:, 1:]", "scored = mask[:, :-1]"),
        ),
        Mistake(
            "the reply's first token is left out",
            "It is predicted by the last token of the prompt, and counts: much of what tells replies apart is how they begin.",
            "01, Sum or mean?",
            edit=("scored = mask[:, 1:]", "scored = mask[:, 1:] & mask[:, :-1]"),
        ),
        Mistake(
            "the reply's last token is left out",
            "The last token is `<end>`, and it counts: a model that is never taught to stop does not stop.",
            "01, Only the reply counts",
            edit=("scored = mask[:, 1:]", "scored = mask[:, 1:] & F.pad(mask[:, 2:], (0, 1))"),
        ),
        Mistake(
            "the logits are not shifted",
            "Row t speaks about token t + 1. Asked for its own token it says how likely that is to come twice.",
            "01, From logits to the log-probability of a text",
            edit=("logits[:, :-1]", "logits[:, 1:]"),
        ),
        Mistake(
            "the mean runs over all columns",
            "Dividing by the width of the batch makes a reply's number depend on its neighbours' lengths. Divide by its own number of tokens.",
            "01, Sum or mean?",
            edit=("scored.sum(-1)", "scored.shape[-1]"),
        ),
        Mistake(
            "the mean divides by the tokens of the whole batch",
            "Each reply has a mean of its own. The number of all tokens belongs in the loss of a batch.",
            "01, Sum or mean?",
            edit=("scored.sum(-1)", "scored.sum()"),
        ),
        Mistake(
            "always the mean",
            "A sum was asked for. The two rank replies differently, and nothing crashes if they are confused.",
            "01, Sum or mean?",
            edit=(" if average else total", ""),
        ),
        Mistake(
            "always the sum",
            "With `average` each sum is divided by the number of the reply's tokens.",
            "01, Sum or mean?",
            edit=("total / scored.sum(-1) if average else total", "total"),
        ),
        Mistake(
            "sum and mean are exchanged",
            "With `average` the mean is asked for, without it the sum.",
            "01, Sum or mean?",
            edit=("total / scored.sum(-1) if average else total", "total if average else total / scored.sum(-1)"),
        ),
    ],
    hints=[
        "Begin with the log-probability of every token but the first, as in task 01.1. Which column of the mask goes with which?",
        "The mask loses its first column, as the ids do. Multiply, then sum along the row.",
        "For the mean divide by the number of True entries in the row's mask.",
    ],
    equivalent={"`(:, :-1)` -> `(:, :)`": "gather reads no further than its index goes, and that ends one row earlier"},
)  # fmt: skip


# ---- 01.3


def whole_batch(losses, tokens):
    """The loss of a batch that went through the model in pieces.

    losses: list of floats; tokens: list of ints, as many
    Returns {"loss": float, "weights": list of floats}.
    """
    total = sum(tokens)
    weights = [count / total for count in tokens]
    loss = sum(weight * loss for weight, loss in zip(weights, losses))
    return {"loss": loss, "weights": weights}


def whole_batch_in_torch(losses, tokens):
    counts = torch.tensor(tokens, dtype=torch.float64)
    summed = counts * torch.tensor(losses, dtype=torch.float64)
    return {"weights": (counts / counts.sum()).tolist(), "loss": (summed.sum() / counts.sum()).item()}


def pieces(draw: Draw, tokens: list[int]) -> dict:
    return {"losses": [round(x, 2) for x in draw.distinct(len(tokens), low=0.3, high=4.0).tolist()], "tokens": tokens}


def one_piece(draw: Draw):
    yield pieces(draw, [draw.randint(5, 40)])


def equal_pieces(draw: Draw):
    yield pieces(draw, [draw.randint(5, 40)] * 2)


def unequal_pieces(draw: Draw):
    for _ in range(2):
        few = draw.randint(4, 9)
        yield pieces(draw, draw.sample([few, few * draw.randint(3, 5)], 2))


def some_pieces(draw: Draw):
    return [pieces(draw, draw.sample(range(6, 90, 3), count)) for count in (3, 4)]


PIECES = Task(
    id="01.3",
    title="A batch in pieces",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=whole_batch,
    also_correct=[whole_batch_in_torch],
    properties=[
        Property("a piece that is the whole batch has the weight 1", one_piece),
        Property("pieces of equal size weigh alike", equal_pieces),
        Property("a piece with more tokens weighs more", unequal_pieces),
        Property("the loss is the mean over all tokens of the batch", some_pieces),
    ],
    mistakes=[
        Mistake(
            "the mean of the pieces' means",
            "Then a token in a short piece weighs more than one in a long piece, and the loss depends on how the batch was cut.",
            "01, The loss of SFT",
            edit=("[count / total for count in tokens]", "[1 / len(tokens) for count in tokens]"),
        ),
        Mistake(
            "the sum of the pieces' means",
            "With this the gradient grows with the number of pieces: a batch that is cut more finely pulls harder.",
            "01, The loss of SFT",
            edit=("[count / total for count in tokens]", "[1.0 for count in tokens]"),
        ),
        Mistake(
            "the weights are the numbers of tokens themselves",
            "That gives the sum over all tokens. A mean's weights add up to 1.",
            "01, The loss of SFT",
            edit=("count / total for", "float(count) for"),
        ),
        Mistake(
            "the weights are shares of the largest piece",
            "A mean's weights add up to 1, so each is a share of all tokens.",
            "01, The loss of SFT",
            edit=("sum(tokens)", "max(tokens)"),
        ),
        Mistake(
            "short pieces weigh most",
            "Every token of the batch weighs the same, so a piece weighs by how many it holds. Yours favours the short ones.",
            "01, The loss of SFT",
            edit=("count / total for", "1 / count / sum(1 / other for other in tokens) for"),
        ),
        Mistake(
            "divided once more by the number of pieces",
            "The weights add up to 1 already. Divided once more, the loss and its gradient shrink with the number of pieces.",
            "01, The trainer",
            edit=("count / total for", "count / total / len(tokens) for"),
        ),
        Mistake(
            "the weights are found and not used",
            "The loss is the sum of weight times loss. The plain mean of the losses is right only if all pieces are of one length.",
            "01, The loss of SFT",
            edit=("sum(weight * loss for weight, loss in zip(weights, losses))", "sum(losses) / len(losses)"),
        ),
        Mistake(
            "the loss is right, and the weights are the numbers of tokens",
            "Multiplied with these, the pieces' losses add up to the sum over all tokens. To add up to the mean each weight must be a share of all tokens.",
            "01, The loss of SFT",
            edit=('"weights": weights', '"weights": [float(count) for count in tokens]'),
        ),
        Mistake(
            "the loss is right, and all weights are alike",
            "With equal weights the products add up to the mean of the pieces' means, and so would the gradients. A piece weighs by its share of the tokens.",
            "01, The loss of SFT",
            edit=('"weights": weights', '"weights": [1 / len(tokens) for _ in tokens]'),
        ),
        Mistake(
            "the weights add up to the number of pieces",
            "Such weights are for a trainer that divides by the number of pieces afterwards. Here the products are to add up to the loss as they are.",
            "01, The trainer",
            edit=('"weights": weights', '"weights": [weight * len(tokens) for weight in weights]'),
        ),
        Mistake(
            "each piece counts as one token",
            "The sum of the pieces' means was divided by the number of tokens. A piece's mean must first be multiplied with its own number of tokens.",
            "01, The loss of SFT",
            edit=("count / total for", "1 / total for"),
        ),
    ],
    hints=[
        "A piece's mean loss times its number of tokens is the sum over its tokens.",
        "Add up these sums, and divide by the number of all tokens. What has each piece's loss been multiplied by?",
    ],
)  # fmt: skip


# ---- 01.4


def end_push(end_probs, is_end, scored):
    """How SFT pushes the logit of `<end>` at each place.

    end_probs: (B, T) floats; is_end, scored: (B, T) booleans. Returns (B, T).
    """
    target = is_end.float()
    push = target - end_probs
    return push * scored


def end_push_by_autograd(end_probs, is_end, scored):
    logit = (end_probs / (1 - end_probs)).log().requires_grad_()
    log_p_end, log_p_other = F.logsigmoid(logit), F.logsigmoid(-logit)  # what the others share is not end's business
    likelihood = torch.where(is_end, log_p_end, log_p_other)[scored].sum()
    return torch.autograd.grad(likelihood, logit)[0]


def end_push_case_by_case(end_probs, is_end, scored):
    push = end_probs.clone()
    for b in range(push.shape[0]):
        for t in range(push.shape[1]):
            p = end_probs[b, t]
            push[b, t] = 0.0 if not scored[b, t] else 1 - p if is_end[b, t] else -p
    return push


def places(draw: Draw, ends: list[int], width: int, *, taught=True, prompt=0) -> dict:
    """Rows in which `<end>` comes at the given place; the places behind it are padding, the first few the prompt's."""
    columns, end = torch.arange(width), torch.tensor(ends)[:, None]
    is_end = columns == end
    scored = (columns >= prompt) & (columns <= end) & (taught | ~is_end)
    return {"end_probs": draw.distinct(len(ends), width, low=0.1, high=0.9), "is_end": is_end, "scored": scored}


def taught_to_end(draw: Draw):
    return [places(draw, [0], 1), places(draw, [draw.randint(1, 2)], 3)]


def never_taught(draw: Draw):
    return [places(draw, [1], 2, taught=False), places(draw, [2], 4, taught=False)]


def prompts_and_padding(draw: Draw):
    yield places(draw, [2], 4, prompt=1)
    for taught in (True, False):
        yield places(draw, [4, draw.randint(2, 3)], 5, prompt=1, taught=taught)


END = Task(
    id="01.4",
    title="A model that is never taught to stop",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=end_push,
    also_correct=[end_push_by_autograd, end_push_case_by_case],
    properties=[
        Property("where `<end>` comes it is pushed up, elsewhere in the reply down", taught_to_end),
        Property("if `<end>` does not count it is never pushed up", never_taught),
        Property("prompt and padding push nothing", prompts_and_padding),
    ],
    mistakes=[
        Mistake(
            "`<end>` is pushed only where it comes",
            "The softmax shares out one whole: to make another token likelier is to make `<end>` less likely. Every other token of the reply pushes it down.",
            "01, A model is a table of next-token probabilities",
            edit=("target - end_probs", "target * (1 - end_probs)"),
        ),
        Mistake(
            "the push up does not weaken",
            "Where `<end>` comes the push is what its probability lacks to 1. A model that already ends there is left alone.",
            "01, The loss of SFT",
            edit=("target - end_probs", "target - end_probs * (1 - target)"),
        ),
        Mistake(
            "every push goes up",
            "At a place where another token comes, the loss falls if `<end>` becomes less likely.",
            "01, The loss of SFT",
            edit=("target - end_probs", "(target - end_probs).abs()"),
        ),
        Mistake(
            "the gradient, not the push",
            "A step goes against the gradient of the loss. The push is minus that gradient.",
            "01, The loop",
            edit=("target - end_probs", "end_probs - target"),
        ),
        Mistake(
            "places that do not count push as well",
            "What the mask leaves out is no part of the loss, so it has no gradient.",
            "01, Only the reply counts",
            edit=("push * scored", "push"),
        ),
        Mistake(
            "`<end>` is pushed up even where it does not count",
            "If the mask leaves `<end>` out, the place where it comes is no part of the loss, and nothing ever pushes it up.",
            "01, Only the reply counts",
            edit=("push * scored", "push * (scored | is_end)"),
        ),
        Mistake(
            "divided by the number of tokens that count",
            "Here the loss is the sum over these tokens, so that each place can be read by itself.",
            "01, The loss of SFT",
            edit=("push * scored", "push * scored / scored.sum().clamp(min=1)"),
        ),
    ],
    hints=[
        "Take one place that counts. Its loss is -ln p of the token that comes. Raise the logit of `<end>` a little: what becomes of that p if the token is `<end>`, and if it is another one?",
        "ln p of a token is its logit minus ln(sum of exp(logit) over the vocabulary). The second term's slope by the logit of `<end>` is the probability of `<end>`.",
        "A place that counts pushes by 1 - p if `<end>` comes there, and by -p if another token does. The others push by 0.",
    ],
)  # fmt: skip


# ---- 01.5


def next_token_probs(logits, *, temperature, top_p):
    """The probabilities that the next token is drawn with.

    logits: (V,); temperature: 0 or above; top_p: above 0, at most 1
    Returns (V,): entry v for token v.
    """
    if temperature == 0:
        return F.one_hot(logits.argmax(), len(logits)).float()
    probs = (logits / temperature).softmax(-1)
    if top_p == 1:
        return probs
    ordered, order = probs.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered * (before < top_p)
    kept = kept / kept.sum()
    return torch.zeros_like(probs).scatter(-1, order, kept)


def next_token_probs_one_by_one(logits, *, temperature, top_p):
    result = torch.zeros(len(logits))
    if temperature == 0:
        result[int(torch.argmax(logits))] = 1.0
        return result
    weights = [float(x) for x in torch.exp((logits - logits.max()) / temperature)]
    probs = [weight / sum(weights) for weight in weights]
    total = 0.0
    if top_p == 1:
        return torch.tensor(probs)
    for token in sorted(range(len(probs)), key=lambda n: -probs[n]):
        result[token] = probs[token]
        total += probs[token]
        if total >= top_p:
            break
    return result / total


def next_token_probs_by_filtering_logits(logits, *, temperature, top_p):
    if temperature == 0:
        temperature = 1e-4
    scaled = logits / temperature
    if top_p == 1:
        return torch.exp(scaled - scaled.logsumexp(0))
    values, order = torch.sort(scaled, descending=True)
    count = int((values.softmax(0).cumsum(0) < top_p).sum()) + 1
    filtered = torch.full_like(scaled, float("-inf"))
    filtered[order[:count]] = scaled[order[:count]]
    return filtered.softmax(0)


def kept_of(logits: torch.Tensor, temperature: float, top_p: float) -> int:
    sums = (logits / temperature).softmax(-1).sort(descending=True).values.cumsum(-1)
    return int((sums < top_p).sum()) + 1


def nucleus(draw: Draw, words: int, temperature: float) -> dict:
    """Logits and a top_p that lies well between two running sums, here and at temperature 1.

    At the temperature, the tokens that top_p keeps are neither one nor all nor as many as at temperature 1, and
    some probability lies on either side of it; the logits are not in falling order.
    """
    while True:
        logits, top_p = draw.distinct(words, low=-2.0, high=2.0), draw.number(0.4, 0.9)
        counts = [kept_of(logits, each, top_p) for each in (temperature, 1.0, 1 / temperature)]
        sums = torch.cat(
            [(logits / each).softmax(-1).sort(descending=True).values.cumsum(-1) for each in (temperature, 1.0)]
        )
        likeliest = (logits / temperature).softmax(-1).max()
        apart = temperature == 1 or counts[0] != counts[1]
        ordered = torch.equal(logits.argsort(descending=True), torch.arange(words))
        if 1 < counts[0] < words and apart and (sums - top_p).abs().min() > 0.02 and likeliest < top_p and not ordered:
            return {"logits": logits, "temperature": temperature, "top_p": top_p}


def at_zero(draw: Draw):
    """The second likeliest token is just behind the likeliest, so that a low temperature is not the same as none."""
    for top_p in (1.0, draw.number(0.4, 0.9)):
        logits = draw.distinct(4, high=2.0)
        likeliest, second = logits.topk(2).indices
        logits[second] = logits[likeliest] - 0.01
        yield {"logits": logits, "temperature": 0, "top_p": top_p}


def temperature_alone(draw: Draw):
    for temperature in (draw.number(0.4, 0.7), draw.number(1.5, 2.5)):
        yield {"logits": draw.distinct(4, low=-2.0, high=2.0), "temperature": temperature, "top_p": 1.0}


def unlikely_tokens(draw: Draw):
    """In fp32 the probabilities from the likeliest down reach 1 at once, or pass it before the last."""
    logits = draw.distinct(4, low=-1.0, high=1.0)
    logits[draw.randint(1, 3)] += 46.0
    yield {"logits": logits, "temperature": draw.number(0.8, 0.95), "top_p": 1.0}
    while True:
        logits = draw.distinct(5, low=-1.0, high=1.0)
        logits[draw.randint(0, 3)] -= 40.0
        if logits.softmax(-1).sort(descending=True).values.cumsum(-1)[-2] > 1:
            yield {"logits": logits, "temperature": 1.0, "top_p": 1.0}
            return


def top_p_alone(draw: Draw):
    return [nucleus(draw, words, 1.0) for words in (4, 6)]


def a_sure_model(draw: Draw):
    """The likeliest token alone has more than top_p."""
    logits = draw.distinct(4, low=-1.0, high=1.0)
    logits[draw.randint(1, 3)] = draw.number(3.5, 4.5)
    yield {"logits": logits, "temperature": draw.number(0.8, 0.95), "top_p": draw.number(0.4, 0.6)}


def both(draw: Draw):
    return [nucleus(draw, 6, draw.number(low, high)) for low, high in ((0.4, 0.6), (1.6, 2.5))]


DRAWING = Task(
    id="01.5",
    title="Temperature and top-p",
    kind="implement",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=next_token_probs,
    also_correct=[next_token_probs_one_by_one, next_token_probs_by_filtering_logits],
    properties=[
        Property("at temperature 0 the likeliest token is certain", at_zero),
        Property("with top_p = 1 the temperature alone decides", temperature_alone),
        Property("with top_p = 1 no token is lost, however unlikely", unlikely_tokens),
        Property("at temperature 1 top_p alone decides", top_p_alone),
        Property("the likeliest token is always kept", a_sure_model),
        Property("both together: first the temperature, then top_p", both),
    ],
    mistakes=[
        Mistake(
            "temperature 0 divides by zero",
            "At temperature 0 there is nothing to divide by: the likeliest token is taken, which is the limit of ever lower temperatures.",
            "01, Say something: sampling by hand",
            edit=("temperature == 0", "False"),
        ),
        Mistake(
            "the temperature multiplies",
            "A high temperature is to bring the tokens nearer to one another, so the logits are divided by it.",
            "01, Say something: sampling by hand",
            edit=("logits / temperature", "logits * temperature"),
        ),
        Mistake(
            "the temperature is forgotten",
            "It divides the logits before the softmax.",
            "01, Say something: sampling by hand",
            edit=("(logits / temperature)", "logits"),
        ),
        Mistake(
            "the temperature divides probabilities",
            "A second softmax, of numbers between 0 and 1, comes out far too even at ordinary temperatures. It is the logits that are divided.",
            "01, Say something: sampling by hand",
            edit=("(logits / temperature)", "(logits.softmax(-1) / temperature)"),
        ),
        Mistake(
            "top_p is decided before the temperature",
            "The order matters: at a high temperature it takes more tokens to reach top_p, at a low one fewer.",
            "01, Say something: sampling by hand",
            edit=("before = ordered.cumsum(-1) - ordered", "plain = logits.softmax(-1)[order]\n    before = plain.cumsum(-1) - plain"),
        ),
        Mistake(
            "the token that reaches top_p is left out",
            "The kept tokens are to have top_p at least, so the one that crosses it is the last to be kept. Else a model that is sure of one token keeps none.",
            "01, Say something: sampling by hand",
            edit=("before < top_p", "before + ordered < top_p"),
        ),
        Mistake(
            "what is kept does not add up to 1",
            "The kept tokens share what the others had: divide by the sum of what is kept.",
            "01, A model is a table of next-token probabilities",
            edit=("kept / kept.sum()", "kept"),
        ),
        Mistake(
            "the probabilities stay in falling order",
            "Entry v belongs to token v. In falling order the draw would name the wrong tokens, and nothing would crash.",
            "01, A model is a table of next-token probabilities",
            edit=("torch.zeros_like(probs).scatter(-1, order, kept)", "kept"),
        ),
        Mistake(
            "the least likely tokens are kept",
            "Count from the likeliest downwards: it is the tail that is to be cut off.",
            "01, Say something: sampling by hand",
            edit=("descending=True", "descending=False"),
        ),
        Mistake(
            "top_p is taken for a least probability",
            "top_p bounds what the kept tokens have together, not what each has alone.",
            "01, Say something: sampling by hand",
            edit=("before < top_p", "ordered >= top_p"),
        ),
        Mistake(
            "at top_p = 1 unlikely tokens are lost",
            "Sums in fp32 reach 1 long before the last token: the tokens behind that seem to have nothing left to add, and are cut off. At 1 there is nothing to cut.",
            "01, Say something: sampling by hand",
            edit=("    if top_p == 1:\n        return probs\n", ""),
        ),
        Mistake(
            "at top_p = 1 what lies behind a rounded sum is lost",
            "A sum in fp32 can come out a little above 1, and all tokens behind it are cut off. At 1 there is nothing to cut.",
            "01, Say something: sampling by hand",
            edit=[("    if top_p == 1:\n        return probs\n", ""), ("before < top_p", "before <= top_p")],
        ),
        Mistake(
            "the token that reaches top_p is left out, and the likeliest kept by hand",
            "The likeliest token is kept in any case, and that hides the error where the model is sure. Elsewhere the kept tokens have less than top_p together.",
            "01, Say something: sampling by hand",
            edit=("before < top_p", "(before + ordered < top_p) | (before == 0)"),
        ),
        Mistake(
            "the mask of the sorted tokens lies on the unsorted ones",
            "Entry 0 of that mask belongs to the likeliest token, not to token 0. Put the mask, or what it keeps, back in its place first.",
            "01, A model is a table of next-token probabilities",
            edit=[("kept = ordered * (before < top_p)", "kept = probs * (before < top_p)"), ("torch.zeros_like(probs).scatter(-1, order, kept)", "kept")],
        ),
        Mistake(
            "the token that passes top_p is left out, at 1 too",
            "The token that crosses top_p is the last to be kept. And at 1 a sum in fp32 can come out a little above it, and the tokens from there on are lost.",
            "01, Say something: sampling by hand",
            edit=[("    if top_p == 1:\n        return probs\n", ""), ("before < top_p", "ordered.cumsum(-1) <= top_p")],
        ),
        Mistake(
            "the token that passes top_p is left out, at 1 too, and the likeliest kept by hand",
            "The likeliest token is kept in any case, and that hides the error where the model is sure. The one that crosses top_p belongs to the kept; and at 1 there is nothing to cut, though a sum in fp32 can come out above it.",
            "01, Say something: sampling by hand",
            edit=[("    if top_p == 1:\n        return probs\n", ""), ("before < top_p", "(ordered.cumsum(-1) <= top_p) | (torch.arange(len(ordered)) == 0)")],
        ),
    ],
    hints=[
        "Treat temperature 0 first. Otherwise: divide, take the softmax, and sort the probabilities from the likeliest down, remembering where each came from.",
        "If top_p is 1, return the probabilities now. Otherwise a token is kept if those before it in that order have less than top_p together.",
        "Set the others to 0, divide by the sum of what is left, and put each back in its place (`scatter`, or a loop).",
    ],
    atol=1e-30,  # an unlikely token is not a token with probability 0
    equivalent={"`before < top_p` -> `before <= top_p`": "no running sum lies on top_p"},
)  # fmt: skip


TASKS = [TOKENS, REPLY, PIECES, END, DRAWING]
