"""Records: malformed ones are named, published formats are read, borders of tokens are right."""

import copy
import json

import pandas as pd
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from course_lib.data import (
    LengthBuckets,
    RecordError,
    collate_completions,
    encode_completion,
    encode_text,
    keep_valid,
    load_records,
    validate_records,
)
from course_lib.data.tokenization import Encoded

GOOD = {"prompt": "what is up?", "chosen": "the sky.", "rejected": "no."}
USER, REPLY = [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "hello"}]
NO = [{"role": "assistant", "content": "no"}]


def spoilt(**changes) -> dict:
    return {k: v for k, v in (GOOD | changes).items() if v is not ...}


@pytest.mark.parametrize(
    ("record", "what", "remedy"),
    [
        (spoilt(rejected=...), "lacks 'rejected'", "add or rename"),
        (spoilt(chosen=""), "empty 'chosen'", "write what the model should say"),
        (spoilt(chosen="  \n"), "empty 'chosen'", "drop the row"),
        (spoilt(prompt=""), "empty prompt", "drop the row"),
        (spoilt(rejected="the sky."), "'chosen' equal to 'rejected'", "drop the row"),
        (spoilt(chosen=3), "'chosen' is a int", "string or a list of chat messages"),
        (spoilt(chosen=None), "'chosen' is a NoneType", "string or a list of chat messages"),
        (spoilt(chosen=["a"]), "no chat message", '"role"'),
        (spoilt(chosen=REPLY), "mixes strings and chat messages", "one of the two forms"),
        ({"prompt": USER, "chosen": REPLY, "rejected": NO}, "while the rows before", "one of the two forms"),
        ({"prompt": [{"role": "robot", "content": "x"}], "chosen": REPLY, "rejected": NO}, "'robot'", "use one of"),
        ("just text", "is a str, not a dict", "give a dict"),
    ],
)
def test_each_malformed_record_is_named_with_row_and_remedy(record, what, remedy):
    with pytest.raises(RecordError) as error:
        validate_records([GOOD, record, GOOD], "preference")
    assert [p.row for p in error.value.problems] == [1]
    assert f"row 1: {error.value.problems[0].what}" in str(error.value)
    assert what in str(error.value) and remedy in str(error.value)


def test_all_problems_are_counted_and_the_message_stays_short():
    with pytest.raises(RecordError, match="25 of 26 records") as error:
        validate_records([GOOD] + [spoilt(chosen="")] * 25, "preference")
    assert len(error.value.problems) == 25 and "15 more" in str(error.value)


def test_labels_must_be_booleans():
    row = {"prompt": "a", "completion": "b", "label": "good"}
    with pytest.raises(RecordError, match="'label' is 'good'.*True"):
        validate_records([row], "unpaired")


def test_over_long_prompts_and_rows_are_named(bpe_tokenizer):
    rows = [GOOD, GOOD | {"prompt": "what " * 40}, GOOD | {"chosen": "yes " * 40}]
    with pytest.raises(RecordError) as error:
        validate_records(rows, "preference", tokenizer=bpe_tokenizer, max_length=30)
    assert "row 1: has an over-long prompt" in str(error.value) and "shorten the prompt" in str(error.value)
    assert "row 2: is" in str(error.value) and "max_length" in str(error.value)


def test_keep_valid_returns_the_rest_and_says_what_it_left():
    valid, problems = keep_valid([GOOD, spoilt(chosen=""), GOOD], "preference")
    assert valid == [GOOD, GOOD] and [p.row for p in problems] == [1]


def test_no_records_and_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="no records"):
        validate_records([], "preference")
    with pytest.raises(ValueError, match="unknown record kind"):
        validate_records([GOOD], "pairs")


def test_plain_text_rows_may_stand_among_demonstrations():
    rows = [{"prompt": USER, "completion": REPLY}, {"text": "the sky is up."}]
    assert validate_records(rows, "sft") == rows


@given(
    prompt=st.text("the anwris o?", min_size=1, max_size=30), answer=st.text("the anwris o?", min_size=1, max_size=30)
)
@settings(max_examples=150, deadline=None)
def test_prompt_tokens_never_enter_the_completion(bpe_tokenizer, prompt, answer):
    encoded = encode_completion(prompt, answer, bpe_tokenizer)
    assert bpe_tokenizer.decode(encoded.prompt_ids) == prompt
    assert bpe_tokenizer.decode(encoded.completion_ids) == answer + "<eos>"
    assert encoded.completion_ids.count(bpe_tokenizer.eos_token_id) == 1


def test_a_completion_after_a_torn_token_begins_with_no_blank_that_nobody_wrote():
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    special = {"special_tokens": ["<unk>", "<eos>"]}
    core.train_from_iterator(["Q: Hello there\n = a"] * 9, trainers.BpeTrainer(vocab_size=60, **special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    encoded = encode_completion("Q: Hel", "lo there", tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.completion_ids)[0][0] == "l"


def test_the_hypothesis_above_meets_tokens_that_span_the_border(bpe_tokenizer):
    whole = bpe_tokenizer("the answer is yes")["input_ids"]
    assert whole[: len(bpe_tokenizer("the ans")["input_ids"])] != bpe_tokenizer("the ans")["input_ids"]
    encoded = encode_completion("the ans", "wer is yes", bpe_tokenizer)
    assert bpe_tokenizer.decode(encoded.completion_ids) == "wer is yes<eos>"


def test_chat_completion_ends_with_one_eos_and_nothing_after_it(bpe_tokenizer):
    bpe_tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    try:
        encoded = encode_completion(USER, REPLY, bpe_tokenizer)
    finally:
        bpe_tokenizer.chat_template = None
    assert bpe_tokenizer.decode(encoded.completion_ids) == "hello<eos>"


def test_an_eos_inside_a_string_is_text_like_any_other(bpe_tokenizer):
    pairs = [encode_completion("what is it?<eos>", answer, bpe_tokenizer) for answer in ("yes<eos>", "no<eos>")]
    assert [bpe_tokenizer.decode(p.completion_ids) for p in pairs] == ["yes<eos>", "no<eos>"]
    inside = encode_completion("is it?", "the answer<eos>no", bpe_tokenizer)
    assert bpe_tokenizer.decode(inside.completion_ids) == "the answer<eos>no<eos>"


def test_tokenizers_that_append_eos_themselves_do_not_end_the_prompt_with_it(bpe_tokenizer):
    appending = copy.deepcopy(bpe_tokenizer)
    appending.backend_tokenizer.post_processor = TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 0)])
    assert appending("yes")["input_ids"][-1] == appending.eos_token_id
    assert encode_completion("what is", " it?", appending) == encode_completion("what is", " it?", bpe_tokenizer)


def test_a_string_after_chat_messages_is_the_assistants_reply(tokenizer):
    assert encode_completion(USER, "hello", tokenizer) == encode_completion(USER, REPLY, tokenizer)


def test_other_columns_never_change_what_is_trained_on(tokenizer):
    (row,) = validate_records([{"prompt": "a", "completion": "right", "chosen": "wrong", "rejected": "x"}], "sft")
    assert row == {"prompt": "a", "completion": "right"}


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"prompt": [{"role": "system", "content": "x"}], "chosen": REPLY, "rejected": REPLY}, "equal"),
        (
            {"prompt": [{"role": "system", "content": "x"}, *USER], "chosen": REPLY, "rejected": NO},
            "cannot be tokenised",
        ),
        ({"prompt": USER, "chosen": USER + REPLY, "rejected": REPLY}, "does not begin and end with the assistant"),
        ({"prompt": "hi", "chosen": "cut \ud83d", "rejected": "no"}, "cannot be tokenised"),
        ({"prompt": "hi", "chosen": "The color.", "rejected": "the color ."}, "the same tokens"),
    ],
)
def test_what_a_tokenizer_cannot_use_is_named_by_row(record, what, tokenizer):
    with pytest.raises(RecordError, match=f"row 0: .*{what}"):
        validate_records([record], "preference", tokenizer=tokenizer, max_length=100)


def test_forms_are_compared_past_plain_text_rows():
    rows = [{"text": "x"}, {"prompt": "a", "completion": "b"}, {"prompt": USER, "completion": REPLY}]
    with pytest.raises(RecordError, match="row 2: is in messages form"):
        validate_records(rows, "sft")


def test_chat_without_template_says_what_to_do(bpe_tokenizer):
    with pytest.raises(ValueError, match="no chat template"):
        encode_completion(USER, REPLY, bpe_tokenizer)


def test_plain_text_is_trained_on_whole(tokenizer):
    encoded = encode_text("a banana is yellow.", tokenizer)
    assert encoded.prompt_ids == [tokenizer.bos_token_id]
    assert tokenizer.decode(encoded.completion_ids) == "a banana is yellow. <end>"


def test_collation_aligns_completions_and_masks_by_length():
    batch = collate_completions([Encoded([9, 9, 9], [4, 5]), Encoded([9], [4, 4, 5])], pad_token_id=5)
    assert batch["input_ids"].tolist() == [[9, 9, 9, 4, 5, 5], [5, 5, 9, 4, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    assert batch["completion_mask"].int().tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]


def test_an_empty_completion_never_reaches_a_batch():
    with pytest.raises(ValueError, match="row 1 of the batch has an empty completion"):
        collate_completions([Encoded([1], [2]), Encoded([1], [])], pad_token_id=0)


@given(n=st.integers(1, 200), size=st.integers(1, 40), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_buckets_use_every_row_once_an_epoch_in_even_batches(n, size, seed):
    buckets = LengthBuckets([(i * 37) % 50 for i in range(n)], size, seed=seed)
    batches = list(buckets)
    assert sorted(i for b in batches for i in b) == list(range(n))
    assert len(batches) == len(buckets) and max(map(len, batches)) - min(map(len, batches)) <= 1
    assert max(map(len, batches)) <= size


@pytest.mark.parametrize(("n", "size"), [(1000, 32), (4001, 32), (100, 8), (33, 32)])
def test_two_processes_share_all_rows(n, size):
    shards = [
        [i for batch in BatchSamplerShard(LengthBuckets(range(n), size), 2, rank) for i in batch] for rank in (0, 1)
    ]
    assert set(shards[0]) | set(shards[1]) == set(range(n))


def test_buckets_repeat_by_seed_and_differ_by_epoch():
    first, second = (LengthBuckets(range(100), 8, seed=3) for _ in range(2))
    epochs = [list(first), list(first)]
    assert epochs == [list(second), list(second)] and epochs[0] != epochs[1]


def test_jsonl_and_parquet_give_the_same_records(tmp_path):
    rows = [GOOD | {"source": "x"}, spoilt(chosen="the moon.") | {"source": "y"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    pd.DataFrame(rows).to_parquet(tmp_path / "pairs.parquet")
    wanted = [{k: r[k] for k in GOOD} for r in rows]
    assert load_records(tmp_path / "pairs.jsonl") == load_records(tmp_path / "pairs.parquet") == wanted


def test_broken_json_lines_are_named_by_row(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(GOOD) + '\n{"prompt": \n')
    with pytest.raises(RecordError, match="row 1: is not JSON"):
        load_records(tmp_path / "pairs.jsonl")


def test_malformed_rows_of_a_file_are_kept_for_validation(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, [GOOD, spoilt(chosen=...), "x"])))
    with pytest.raises(RecordError) as error:
        validate_records(load_records(tmp_path / "pairs.jsonl"), "preference")
    assert [p.row for p in error.value.problems] == [1, 2]


def written(tmp_path, row: dict, **options) -> dict:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    return load_records(tmp_path / "rows.jsonl", **options)[0]


def test_hh_rlhf_text_becomes_messages(tmp_path):
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"
    row = written(tmp_path, {"chosen": start + " because.", "rejected": start + " no."})
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "user"]
    assert row["chosen"] == [{"role": "assistant", "content": "because."}]
    assert row["rejected"] == [{"role": "assistant", "content": "no."}]


def test_ultrafeedback_messages_lose_the_shared_prompt(tmp_path):
    row = written(tmp_path, {"prompt": "hi", "chosen": USER + REPLY, "rejected": USER + [REPLY[0] | {"content": "no"}]})
    assert row == {"prompt": USER, "chosen": REPLY, "rejected": [{"role": "assistant", "content": "no"}]}


def test_kto_rows_and_chat_logs_are_read(tmp_path):
    kto = {"prompt": USER, "completion": REPLY, "label": True}
    assert written(tmp_path, kto | {"id": 3}, kind="unpaired") == kto
    assert written(tmp_path, {"messages": USER + REPLY}, kind="sft") == {"prompt": USER, "completion": REPLY}


def test_columns_can_be_renamed(tmp_path):
    row = written(tmp_path, {"question": "a", "good": "b", "bad": "c"},
                  columns={"question": "prompt", "good": "chosen", "bad": "rejected"})  # fmt: skip
    assert row == {"prompt": "a", "chosen": "b", "rejected": "c"}


def test_line_separators_inside_strings_do_not_cut_json_lines(tmp_path):
    row = GOOD | {"chosen": "the\u2028sky."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_records(tmp_path / "rows.jsonl") == [row]


def test_a_prompt_that_the_sides_do_not_repeat_is_kept(tmp_path):
    more = [{"role": "assistant", "content": "which?"}, {"role": "user", "content": "that"}]
    row = written(tmp_path, {"prompt": USER, "chosen": more + REPLY, "rejected": more + NO})
    assert row == {"prompt": USER + more, "chosen": REPLY, "rejected": NO}


def test_nonsense_limits_are_refused():
    with pytest.raises(ValueError, match="limit"):
        load_records("pocket-world", limit=0)
    with pytest.raises(ValueError, match="unknown split"):
        load_records("pocket-world", split="validation")


def test_a_hub_name_without_internet_says_what_works_offline(tmp_path):
    with pytest.raises(OSError, match="(?s)could not load the data set.*pocket-world"):
        load_records("someone/no-such-data-set")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*pairs\.jsonl"):
        load_records(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("kind", ["preference", "sft", "unpaired", "prompt"])
def test_pocket_world_gives_valid_records_of_every_kind(kind, tokenizer):
    records = load_records("pocket-world", kind, limit=200)
    assert len(records) == 200
    assert validate_records(records, kind, tokenizer=tokenizer, max_length=200) == records
