"""Pocket World's word-level tokenizer with its chat template, as transformers loads it."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from course_lib.world import language as lang
from course_lib.world.acts import ACTS
from course_lib.world.facts import FACTS
from course_lib.world.skills import NUMBERS, SUMS, WORDS, Earlier, Larger, Longer

PAD, UNKNOWN, BEGIN, USER, ASSISTANT, END = "<pad>", "<unk>", "<bos>", "<user>", "<assistant>", "<end>"
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user> ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<assistant> ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role'] + ': use user or assistant') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


def vocabulary() -> list[str]:
    """Every token, special ones first; ids are positions, and every id has a token."""
    subjects = [*FACTS, *SUMS, *ACTS, *(Longer(w, w) for w in WORDS), *(Larger(n, n) for n in NUMBERS)]
    subjects.append(Earlier(*WORDS[:2]))
    phrases = [
        *(phrase for s in subjects for phrase in (*s.questions, s.sentence())),
        *(act.judgement for act in ACTS), *lang.GREETINGS, lang.JSON_REQUEST.format(q=""),
        *lang.WARM_OPENERS, *lang.PLAIN_OPENERS, *lang.FILLERS, *lang.HEDGES, *lang.WARM_CLOSERS,
        *lang.PLAIN_CLOSERS, *lang.RUDE, *lang.REFUSALS, *lang.UNKNOWN, lang.AGAIN, lang.json_reply(""),
    ]  # fmt: skip
    seen = dict.fromkeys(word for phrase in phrases for word in lang.words(phrase))
    return [PAD, UNKNOWN, BEGIN, USER, ASSISTANT, END, *sorted(seen)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; decoding gives readable text back."""
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate(vocabulary())}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    word = r'\{"answer":"|"\}|\w+|[^\w\s]'
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(word), "isolated"),
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
        ]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(lang.JSON_OPEN + " ", lang.JSON_OPEN),
            decoders.Replace(" " + lang.JSON_CLOSE, lang.JSON_CLOSE),
            decoders.Replace(" :", ":"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
