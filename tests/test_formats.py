"""Data as others publish it: rows in memory as from a file, files in any state, lengths, names that nobody has."""

import gzip
import json
import re
import time

import datasets
import pandas as pd
import pytest
from conftest import tiny_llama

import course_lib
from course_lib import KTOConfig, KTOTrainer, PreferenceConfig, PreferenceTrainer, RecordError, hub, load_records
from course_lib.data import Encoded, encode_records, fit_rows, keep_valid, looks_local, validate_records
from course_lib.world import unpaired_records

HH = {
    "chosen": "\n\nHuman: sky?\n\nAssistant:     def f():\n        pass",
    "rejected": "\n\nHuman: sky?\n\nAssistant: no",
}
ASK = [{"role": "user", "content": "sky?"}]
ULTRA = {
    "prompt": "sky?",
    "chosen": [*ASK, {"role": "assistant", "content": "blue."}],
    "rejected": [*ASK, {"role": "assistant", "content": "red."}],
    "score_chosen": 8.0,
}


def test_an_answer_keeps_its_own_indentation():
    assert load_records([HH])[0]["chosen"][0]["content"] == "    def f():\n        pass"


@pytest.mark.parametrize("row", [HH, ULTRA])
def test_rows_in_memory_are_read_as_those_of_a_file(row, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    from_file = load_records(tmp_path / "a.jsonl")
    table = datasets.Dataset.from_list([row])
    stream = load_records(table.to_iterable_dataset(), limit=1)
    assert from_file == load_records([row]) == load_records(table) == stream == validate_records([row], "preference")


@pytest.mark.parametrize("row", [HH, ULTRA])
def test_a_trainer_takes_published_rows_as_they_are(row, tokenizer):
    config = PreferenceConfig(progress=False)
    made = [
        PreferenceTrainer(tiny_llama(len(tokenizer)), tokenizer, rows, config).rows
        for rows in ([row] * 2, load_records([row] * 2))
    ]
    assert made[0] == made[1]


def test_a_stream_needs_a_limit_and_splits_a_choice():
    table = datasets.Dataset.from_list([ULTRA])
    with pytest.raises(ValueError, match="limit="):
        load_records(table.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"source\['train'\]"):
        load_records(datasets.DatasetDict({"train": table}))


@pytest.mark.parametrize(("given", "label"), [(1, True), (0, False), (1.0, True), (0.0, False), (True, True)])
def test_thumbs_may_be_numbers(given, label):
    assert load_records([{"prompt": "a", "completion": "b", "label": given}], "unpaired")[0]["label"] is label


@pytest.mark.parametrize("given", [2, 0.5, "yes", None])
def test_other_labels_are_named(given):
    with pytest.raises(RecordError, match="'label'"):
        validate_records([{"prompt": "a", "completion": "b", "label": given}], "unpaired")


def test_other_columns_are_named_and_can_be_renamed():
    row = {"asked": "a", "said": "b"}
    with pytest.raises(RecordError, match=r"it has 'asked', 'said'.*columns="):
        validate_records([row], "sft")
    columns = {"asked": "prompt", "said": "completion"}
    assert load_records([row], "sft", columns=columns) == [{"prompt": "a", "completion": "b"}]


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.json", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_local_files_are_read_whatever_they_are_called(name, mark, tmp_path):
    path, text = tmp_path / name, json.dumps(GOOD).encode()
    if name.endswith("parquet"):
        pd.DataFrame([GOOD]).to_parquet(path)
    else:
        text = mark + (b"prompt,completion\na,b\n" if ".csv" in name else text)
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert load_records(str(path), "sft") == [GOOD]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.jsonl", '{"prompt": "é"}\n{"prompt": "caf\xe9"}'.encode("latin-1"), "not in UTF-8: row 0"),
        ("a.jsonl", json.dumps(GOOD).encode("utf-16"), "not in UTF-8"),
        ("a.parquet", b"PAR1 and no more", "no whole Parquet file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99)[:-12], "no whole gzip file"),
        ("a.json", b'[{"prompt": ', "is not JSON"),
        ("a.xlsx", b"", "in no format that is read here"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_what_to_do(name, data, what, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=what) as error:
        load_records(str(tmp_path / name), "sft")
    assert name in str(error.value)


def test_an_empty_folder_and_a_missing_file_are_no_hub_names(tmp_path):
    with pytest.raises(OSError, match="doesn't contain any data files"):
        load_records(str(tmp_path), "sft")
    with pytest.raises(FileNotFoundError, match="no.csv"):
        load_records("no.csv", "sft")


LONG = [{"prompt": "sky?", "completion": "blue."}, {"prompt": "sky?", "completion": "blue. " * 40}]


def test_the_advice_on_over_long_rows_works_as_printed(tokenizer):
    with pytest.raises(RecordError) as error:
        encode_records(LONG, "sft", tokenizer=tokenizer, max_length=20)
    call = re.search(r"records, _ = .*", str(error.value))[0]
    names = {"records": LONG, "tokenizer": tokenizer, "course_lib": course_lib, "keep_valid": keep_valid}
    exec(call, names)
    assert names["records"] == LONG[:1]


def rows(*lengths):
    return [Encoded([1, 2], list(range(3, 3 + n))) for n in lengths]


def test_over_long_rows_are_dropped_and_counted(caplog):
    kept_rows, kept = fit_rows(rows(3, 30, 4), 10, over_long="drop")
    assert kept == [0, 2] and kept_rows == rows(3, 4) and "0 were cut and 1 left out" in caplog.text


def test_over_long_rows_are_cut_with_their_masks():
    row = Encoded([1, 2], list(range(3, 13)), [True] * 4 + [False] * 6)
    (cut,), kept = fit_rows([row], 8, over_long="truncate")
    assert kept == [0] and cut == Encoded([1, 2], [3, 4, 5, 6, 7, 8], [True] * 4 + [False] * 2)


def test_pairs_that_would_become_equal_and_prompts_without_room_are_left_out():
    same, different = (rows(20)[0], rows(25)[0]), (rows(20)[0], Encoded([1, 2], [9] * 20))
    no_room = (Encoded([1] * 12, [3]), Encoded([1] * 12, [4]))
    _, kept = fit_rows([same, different, no_room], 10, over_long="truncate")
    assert kept == [1]
    with pytest.raises(RecordError, match="max_length"):
        fit_rows([same], 10, over_long="truncate")


@pytest.mark.parametrize("over_long", ["drop", "truncate"])
def test_thumbs_stay_with_their_responses(tokenizer, over_long):
    records = unpaired_records(24)
    records[3] = records[3] | {"completion": [{"role": "assistant", "content": "a banana is yellow. " * 40}]}
    config = KTOConfig(progress=False, batch_size=12, max_length=60, over_long=over_long)
    trainer = KTOTrainer(tiny_llama(len(tokenizer)), tokenizer, records, config)
    expected = [r["label"] for i, r in enumerate(records) if over_long == "truncate" or i != 3]
    assert trainer.labels == expected and max(row.length for row in trainer.rows) <= 60


def test_an_unreachable_hub_is_known_within_two_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://192.0.2.1")  # an address that nobody has
    hub.is_reachable.cache_clear()
    start = time.monotonic()
    assert not hub.is_reachable() and time.monotonic() - start < hub.SECONDS + 1
    with pytest.raises(OSError, match="pocket-world"):
        load_records("someone/no-such-data-set")
    hub.is_reachable.cache_clear()


def test_names_of_files_are_told_from_those_of_a_hub(tmp_path):
    assert all(looks_local(name) for name in ("rows.jsonl", "rows.zst", str(tmp_path), "/nowhere/rows"))
    assert not looks_local("someone/some-data-set")


@pytest.mark.parametrize("reachable", [True, False])
def test_libraries_of_an_unreachable_hub_use_what_they_have_and_are_then_as_before(reachable, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda: reachable)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with hub.offline_if_unreachable():
        assert datasets.config.HF_HUB_OFFLINE is not reachable
    assert datasets.config.HF_HUB_OFFLINE is False
