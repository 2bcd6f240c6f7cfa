"""Data sets as they are published, column for column, each a few rows long: read, sliced, filtered and named."""

import copy
import gzip
import json
import logging
import threading
import time
from pathlib import Path

import datasets
import pytest
from conftest import tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.data_utils import extract_prompt, maybe_convert_to_chatml

from course_lib import KTOConfig, KTOTrainer, PreferenceConfig, PreferenceTrainer, SFTTrainer, hub, load_records
from course_lib.data import PLAIN_CHAT_TEMPLATE, validate_records
from course_lib.data.formats import KINDS, normalised
from course_lib.trainers import TrainingConfig

DATA = Path(__file__).parent / "data"


def user(text):
    return {"role": "user", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


TEA = "Boil water, and wait three minutes."
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
COAT = user("Do I need a coat in Oslo?")
ASKED = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "name": "weather", "content": "-4 degrees"}]
PUBLISHED = {  # name: (place, kind, settings, one of its rows, that row as it is read)
    "hh-rlhf, helpful": ("hh-rlhf", "preference", {"subset": "helpful-base"}, 0, {
        "prompt": [user("Write a function that adds.")],
        "chosen": [says("    def add(a, b):\n        return a + b")], "rejected": [says("No.")]}),
    "hh-rlhf, harmless, two turns": ("hh-rlhf/harmless-base/train.jsonl.gz", "preference", {}, 1, {
        "prompt": [user("Who are you?"), says("A small model."), user("Can you lie?")],
        "chosen": [says("I try not to.")], "rejected": [says("All the time.")]}),
    "hh-rlhf, held out": ("hh-rlhf", "preference", {"subset": "harmless-base", "split": "test"}, 0, {
        "prompt": [user("May I burn a letter?")],
        "chosen": [says("If it is yours.")], "rejected": [says("Burn them all.")]}),
    "hh-rlhf, prompts": ("hh-rlhf", "prompt", {"subset": "harmless-base"}, 1, {
        "prompt": [user("Who are you?"), says("A small model."), user("Can you lie?")]}),
    "UltraFeedback": ("ultrafeedback_binarized", "preference", {"split": "train_prefs"}, 0, {
        "prompt": [user("What colour is a banana?")],
        "chosen": [says("Yellow, once it is ripe.")], "rejected": [says("Blue.")]}),
    "UltraFeedback, demonstrations": ("ultrafeedback_binarized", "sft", {"split": "train_sft"}, 2, {
        "prompt": [user("Say hello.")], "completion": [says("Hello!")]}),
    "UltraFeedback, prompts": ("ultrafeedback_binarized", "prompt", {"split": "test_prefs"}, 0, {
        "prompt": [user("What colour is a banana?")]}),
    "UltraFeedback without prompt": ("trl_ultrafeedback.parquet", "preference", {}, 1, {
        "prompt": [user("Name a river.")], "chosen": [says("The Rhine.")], "rejected": [says("The Danube.")]}),
    "UltraChat": ("ultrachat_200k", "sft", {"split": "train_sft"}, 0, {
        "prompt": [user("What is a lake?"), says("Water with land around it."), user("And an island?")],
        "completion": [says("Land with water around it.")]}),
    "UltraChat, every turn": ("ultrachat_200k", "sft", {"split": "train_sft", "turns": "all"}, 0, {
        "prompt": [user("What is a lake?")],
        "completion": [says("Water with land around it."), user("And an island?"),
                       says("Land with water around it.")]}),
    "UltraChat, prompts": ("ultrachat_200k", "prompt", {"split": "train_gen"}, 0, {
        "prompt": [user("What is a lake?")]}),
    "KTO": ("kto-mix-14k.parquet", "unpaired", {}, 1, {
        "prompt": [system("Be brief."), user("Hi."), says("Hello."), user("What is two and two?")],
        "completion": [says("That depends on what you mean by two.")], "label": False}),
    "orca_dpo_pairs": ("orca_rlhf.jsonl", "preference", {}, 0, {
        "prompt": [system("You are a helpful assistant."), user("Which sea lies north of Egypt?")],
        "chosen": [says("The Mediterranean.")], "rejected": [says("The Baltic.")]}),
    "orca_dpo_pairs, no system": ("orca_rlhf.jsonl", "preference", {}, 1, {
        "prompt": [user("Which is the smallest prime?")], "chosen": [says("Two.")], "rejected": [says("One.")]}),
    "dpo-mix-7k": ("dpo-mix-7k.parquet", "preference", {}, 1, {
        "prompt": [user("Is it cold?"), says("On Mars it is."), user("How cold?")],
        "chosen": [says("About -60 degrees.")], "rejected": [says("Quite.")]}),
    "PKU-SafeRLHF, better": ("pku-saferlhf.jsonl", "preference", {}, 1, {
        "prompt": [user("How do I make tea?")], "chosen": [says(TEA)], "rejected": [says("Water.")]}),
    "PKU-SafeRLHF, safer": ("pku-saferlhf.jsonl", "preference",
                            {"columns": {"safer_response_id": "better_response_id"}}, 1, {
        "prompt": [user("How do I make tea?")], "chosen": [says("Water.")], "rejected": [says(TEA)]}),
    "SHP, first better": ("shp.json", "preference", {}, 0, {
        "prompt": [user("Why did my bread not rise?")],
        "chosen": [says("The yeast was old.")], "rejected": [says("Bad luck.")]}),
    "SHP, second better": ("shp.json", "preference", {}, 1, {
        "prompt": [user("Can I freeze dough?")],
        "chosen": [says("Yes, before the second rise.")], "rejected": [says("No idea.")]}),
    "Alpaca": ("alpaca.parquet", "sft", {}, 0, {
        "prompt": [user("Name three colours.")], "completion": [says("Red, green and blue.")]}),
    "Alpaca, with material": ("alpaca.parquet", "sft", {}, 1, {
        "prompt": [user("Translate into German.\n\nThe moon")], "completion": [says("Der Mond")]}),
    "ShareGPT": ("sharegpt.json", "sft", {}, 0, {
        "prompt": [user("What is snow?"), says("Frozen water."), user("Is it white?")],
        "completion": [says("Mostly.")]}),
    "ShareGPT, with system": ("sharegpt.json", "sft", {}, 1, {
        "prompt": [system("Be brief."), user("Hi.")], "completion": [says("Hello.")]}),
    "gsm8k, prompts": ("gsm8k", "prompt", {"subset": "main"}, 0, {
        "prompt": [user("Ann has 3 nuts and eats 1. How many are left?")]}),
    "gsm8k, the other subset": ("gsm8k", "sft", {"subset": "socratic"}, 0, {
        "prompt": [user("Ann has 3 nuts and eats 1. How many are left?")],
        "completion": [says("How many are left? ** 3 - 1 = 2.\n#### 2")]}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Tables that `datasets` makes of files go where the test's other files are."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def bytewise(bpe_tokenizer):
    """A tokenizer that knows every word, with the plain template."""
    tokenizer = copy.deepcopy(bpe_tokenizer)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_is_read_as_its_words_say(name, bytewise):
    place, kind, options, row, expected = PUBLISHED[name]
    records = load_records(DATA / place, kind, **options)
    assert records[row] == expected
    assert validate_records(records, kind, tokenizer=bytewise, max_length=250) == records


def test_rows_without_a_shared_prompt_column_are_split_where_trl_splits_them():
    for name in ("trl_ultrafeedback.parquet", "dpo-mix-7k.parquet"):
        rows = datasets.Dataset.from_parquet(str(DATA / name)).to_list()
        splits = [extract_prompt(row) for row in rows]
        assert load_records(rows) == [{key: row[key] for key in KINDS["preference"]} for row in splits]


def test_sharegpt_s_roles_are_those_that_trl_gives_them():
    rows = json.loads((DATA / "sharegpt.json").read_text())
    dialogues = [maybe_convert_to_chatml(dict(row))["messages"] for row in rows]
    assert [r["prompt"] + r["completion"] for r in load_records(rows, "sft")] == dialogues


@pytest.mark.parametrize("place", ["tools.jsonl", "tools.parquet"])  # JSON text; a list, with every key everywhere
def test_tool_calls_come_with_their_tools_and_without_keys_that_nobody_wrote(place):
    first, second = load_records(DATA / place, "sft", turns="all")
    assert [tool["function"]["name"] for tool in first["tools"]] == ["weather", "clock"]
    assert first["prompt"] == [COAT] and first["completion"] == [*ASKED, says("Yes, it is cold.")]
    assert second["completion"][0]["tool_calls"][0]["function"]["arguments"] == {"zone": "UTC"}
    assert load_records(DATA / place, "sft")[0]["prompt"] == [COAT, *ASKED]


def test_what_was_read_once_is_read_again_unchanged():
    for place, kind, options, _, _ in PUBLISHED.values():
        records = load_records(DATA / place, kind, **options)
        assert [normalised(record, kind) for record in records] == records


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_format_trains(name, bytewise):
    place, kind, options, _, _ = PUBLISHED[name]
    if kind == "prompt":
        pytest.skip("prompts are answered, not trained on")
    records = load_records(DATA / place, kind, **options)
    make, config = {
        "preference": (PreferenceTrainer, PreferenceConfig), "sft": (SFTTrainer, TrainingConfig),
        "unpaired": (KTOTrainer, KTOConfig),
    }[kind]  # fmt: skip
    trainer = make(tiny_llama(len(bytewise)), bytewise, records * 2, config(progress=False, batch_size=2))
    assert trainer.train().rows[-1]["loss"] > 0


def test_unknown_columns_are_one_error_that_names_them_and_the_way_out(tmp_path):
    rows = [{"query": f"q{i}", "good": "yes", "bad": "no"} for i in range(50)]
    with pytest.raises(ValueError, match="'query', 'good', 'bad'.*columns=") as error:
        load_records(rows)
    assert str(error.value).count("query") == 1
    columns = {"query": "prompt", "good": "chosen", "bad": "rejected"}
    assert load_records(rows, columns=columns)[7] == {"prompt": "q7", "chosen": "yes", "rejected": "no"}


def test_columns_that_no_row_has_are_named():
    with pytest.raises(ValueError, match="names 'qestion', which no row has; the first row has 'question', 'answer'"):
        load_records([{"question": "a", "answer": "b"}], "prompt", columns={"qestion": "prompt"})


def test_a_renamed_column_takes_the_place_of_the_one_that_had_the_name():
    for row in ({"prompt": "old", "new": "mine"}, {"new": "mine", "prompt": "old"}):
        assert load_records([row], "prompt", columns={"new": "prompt"}) == [{"prompt": "mine"}]


def test_splits_and_subsets_that_are_not_there_are_answered_with_those_that_are():
    with pytest.raises(OSError, match="'train_prefs', 'train_sft'"):
        load_records(DATA / "ultrafeedback_binarized", split="train")
    with pytest.raises(OSError, match="main, socratic"):
        load_records(DATA / "gsm8k", "prompt", subset="mian")
    with pytest.raises(OSError, match=r"'main', 'socratic'"):
        load_records(DATA / "gsm8k", "prompt")
    with pytest.raises(ValueError, match="subset= is of a hub data set"):
        load_records(DATA / "shp.json", subset="askbaking")


def numbered(count: int) -> list[dict]:
    return [{"prompt": str(i)} for i in range(count)]


def numbers(records: list[dict]) -> list[int]:
    return [int(record["prompt"]) for record in records]


COUNTS = st.one_of(st.just(""), st.integers(-40, 40).map(str))
PERCENTS = st.one_of(st.just(""), st.integers(-100, 100).map("{}%".format))


@given(rows=st.integers(1, 60), borders=st.one_of(st.tuples(COUNTS, COUNTS), st.tuples(PERCENTS, PERCENTS)))
@settings(max_examples=80, deadline=None)
def test_a_split_takes_the_rows_that_datasets_would_take(rows, borders):
    split = f"train[{borders[0]}:{borders[1]}]"
    try:
        (part,) = datasets.ReadInstruction.from_spec(split).to_absolute({"train": rows})
        expected = list(range(part.from_, part.to))
    except (AssertionError, ValueError):
        return  # borders past the end, or the wrong way round, are refused there
    assert (numbers(load_records(numbered(rows), "prompt", split=split)) if expected else []) == expected


def test_a_held_out_share_and_the_rest_are_all_rows_once_in_files_of_every_kind(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, numbered(41))))
    datasets.Dataset.from_list(numbered(41)).to_parquet(tmp_path / "a.parquet")
    for path in (tmp_path / "a.jsonl", tmp_path / "a.parquet"):
        parts = [numbers(load_records(path, "prompt", split=f"train[{s}]", shuffle=True)) for s in (":95%", "95%:")]
        assert list(map(len, parts)) == [39, 2] and sorted(parts[0] + parts[1]) == list(range(41))
        assert parts[1] == numbers(load_records(path, "prompt", split="test[95%:]", shuffle=True))


def test_split_names_that_cannot_be_meant_are_refused():
    for split in ("train[1000]", "train[:5:2]", "train[a:]", "train[10%:20]", ""):
        with pytest.raises(ValueError, match=r"as 'train\[:1000\]'"):
            load_records(numbered(3), "prompt", split=split)


def test_shuffling_comes_before_the_limit_and_repeats_by_seed():
    taken = [numbers(load_records(numbered(100), "prompt", limit=10, shuffle=True, seed=seed)) for seed in (1, 1, 2)]
    assert taken[0] == taken[1] != taken[2] and taken[0] != sorted(taken[0])
    assert len(set(taken[0])) == 10 and max(taken[0]) >= 10
    assert numbers(load_records(numbered(100), "prompt", limit=3)) == [0, 1, 2]


class Counted:
    """Rows that can be asked for one after another, and how many were."""

    def __init__(self, count: int):
        self.count, self.asked = count, 0

    def __iter__(self):
        for i in range(self.count):
            self.asked += 1
            yield {"prompt": str(i)}


def test_a_stream_is_read_no_further_than_the_limit():
    rows = Counted(1000)
    assert numbers(load_records(rows, "prompt", limit=5, split="train[20:]")) == [20, 21, 22, 23, 24]
    assert rows.asked == 25


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.parquet"])
def test_a_streamed_file_gives_the_rows_of_the_whole_one(name, tmp_path):
    path, rows = tmp_path / name, numbered(300)
    text = "prompt\n" + "\n".join(map(str, range(300))) if ".csv" in name else "\n".join(map(json.dumps, rows))
    if name.endswith("parquet"):
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    for options in ({}, {"split": "train[100:150]"}):
        whole, stream = (load_records(path, "prompt", limit=70, streaming=s, **options) for s in (False, True))
        assert whole == stream and len(whole) == (50 if options else 70)


def test_a_stream_stops_before_what_it_need_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, numbered(5))) + "\nno JSON\n")
    assert numbers(load_records(tmp_path / "a.jsonl", "prompt", limit=5, streaming=True)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="row 5: is not JSON"):
        load_records(tmp_path / "a.jsonl", "prompt", limit=6, streaming=True)


def test_a_hub_data_set_can_be_streamed():
    records = load_records(DATA / "ultrafeedback_binarized", split="train_prefs[1:]", limit=1, streaming=True)
    assert records[0]["prompt"] == [user("Name a river.")]
    records = load_records(DATA / "hh-rlhf", subset="helpful-base", limit=1, streaming=True)
    assert records[0]["rejected"] == [says("No.")]


def test_streams_refuse_what_only_a_whole_can_give(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(numbered(3), indent=1))
    place = tmp_path / "a.json"
    for options, what in [
        ({}, "limit="),
        ({"limit": 2, "shuffle": True}, "leave out shuffle="),
        ({"limit": 2, "split": "train[:50%]"}, "nobody knows a stream's length"),
        ({"limit": 2, "split": "train[-2:]"}, "nobody knows a stream's length"),
        ({"limit": 2}, "one JSON list"),
    ]:
        with pytest.raises(ValueError, match=what):
            load_records(place, "prompt", streaming=True, **options)
    with pytest.raises(ValueError, match="Pocket World is drawn"):
        load_records("pocket-world", streaming=True, limit=2)


ULTRA = {"place": DATA / "ultrafeedback_binarized", "split": "train_prefs"}  # gaps of 6.5, 0 and 0.5
FILTERED = [  # what is asked for, and the rows that are kept
    ({}, [0, 1, 2]),
    ({"min_score_gap": 0.5}, [0, 2]),
    ({"min_score_gap": 1}, [0]),
    ({"drop_ties": True}, [0, 2]),
    ({"drop_ties": False}, [0, 1, 2]),
    ({"max_prompt_characters": 13}, [1, 2]),
    ({"min_answer_characters": 6}, [1, 2]),
    ({"max_answer_characters": 11}, [1, 2]),
    ({"min_score_gap": 0.1, "max_answer_characters": 10}, [2]),
    ({"equals": {"prompt_id": f"{3:064x}"}}, [2]),
    ({"equals": {"score_rejected": 7.0}, "drop_ties": True}, [2]),
    ({"max_turns": 1, "min_turns": 1}, [0, 1, 2]),
]


@pytest.mark.parametrize(("filters", "kept"), FILTERED)
def test_each_filter_keeps_the_rows_that_it_names(filters, kept):
    every = load_records(ULTRA["place"], split=ULTRA["split"])
    assert load_records(ULTRA["place"], split=ULTRA["split"], filters=filters) == [every[i] for i in kept]


def test_scores_under_argilla_s_names_are_known_too():
    assert len(load_records(DATA / "dpo-mix-7k.parquet", filters={"min_score_gap": 2})) == 1
    with pytest.raises(ValueError, match="needs the columns 'score_chosen'.*a row has 'system'"):
        load_records(DATA / "orca_rlhf.jsonl", filters={"min_score_gap": 2})


def test_turns_are_those_of_the_user_whatever_the_kind():
    for kind in ("sft", "prompt"):
        for turns in ("last", "all"):
            assert len(load_records(DATA / "sharegpt.json", kind, turns=turns, filters={"min_turns": 2})) == 1
    assert len(load_records(DATA / "dpo-mix-7k.parquet", filters={"max_turns": 1})) == 1
    assert len(load_records(numbered(3), "prompt", filters={"max_turns": 1})) == 3


def test_pairs_whose_answers_are_the_same_are_ties():
    pairs = [{"prompt": "a", "chosen": "yes ", "rejected": "yes"}, {"prompt": "a", "chosen": "yes", "rejected": "no"}]
    assert load_records(pairs, filters={"drop_ties": True}) == pairs[1:]


def test_the_log_says_how_many_rows_each_filter_dropped(caplog):
    rows = [*numbered(10), *numbered(4), {"prompt": "7" * 50}]
    filters = {"max_prompt_characters": 20, "drop_duplicates": True}
    with caplog.at_level(logging.INFO, logger="course_lib"):
        assert numbers(load_records(rows, "prompt", filters=filters)) == list(range(10))
    assert "kept 10 of 15 rows: max_prompt_characters dropped 1, drop_duplicates dropped 4" in caplog.text


def test_the_limit_counts_rows_that_are_kept():
    rows = [row for row in numbered(9) for _ in range(2)]
    assert numbers(load_records(rows, "prompt", limit=9, filters={"drop_duplicates": True})) == list(range(9))


def test_rows_that_cannot_be_read_pass_filters_and_are_named_by_validation():
    rows = [{"prompt": "a"}, "just text", *numbered(2)]
    records = load_records(rows, "prompt", filters={"min_answer_characters": 3, "drop_ties": True})
    with pytest.raises(ValueError, match="row 1: is a str"):
        validate_records(records, "prompt")


@pytest.mark.parametrize(
    ("filters", "what"),
    [
        ({"min_gap": 1}, "no filter 'min_gap'; choose from equals, min_score_gap"),
        ({"min_score_gap": "1"}, "min_score_gap is a number, at least 0; got '1'"),
        ({"max_turns": -1}, "max_turns is a number"),
        ({"max_turns": True}, "max_turns is a number"),
        ({"drop_ties": 1}, "drop_ties is true or false; got 1"),
        ({"equals": "en"}, r"equals is \{column: value\}"),
        ({"equals": {"lang": "en"}}, "names the column 'lang'; a row has 'prompt'"),
        ({"max_prompt_characters": 0}, "filters leave no row.*max_prompt_characters dropped 3"),
    ],
)
def test_filters_that_cannot_be_meant_are_refused_with_what_can_be(filters, what):
    with pytest.raises(ValueError, match=what):
        load_records(numbered(3), "prompt", filters=filters)


def test_a_name_server_that_never_answers_does_not_hold_the_hub(monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: forever.wait(30) and [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.is_reachable.cache_clear()
    start = time.monotonic()
    assert not hub.is_reachable() and time.monotonic() - start < hub.SECONDS + 0.5
    forever.set()
    hub.is_reachable.cache_clear()
