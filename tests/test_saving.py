"""What is saved and loaded is what was in memory, however the model came about, and on another machine too."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from course_lib import RewardTrainer, load_policy, load_reward_model, sequence_logps
from course_lib.data import collate_pairs, encode_row
from course_lib.models import save_pretrained, sequence_rewards
from course_lib.trainers import TrainingConfig
from course_lib.world import preference_records


@pytest.fixture
def batch(tokenizer):
    pairs = [tuple(encode_row(r, tokenizer)) for r in preference_records(4)]
    return collate_pairs(pairs, tokenizer.pad_token_id)


def moved(model):
    """The model after what stands for training: all that can be trained has changed."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def saved(model, tokenizer, folder) -> str:
    save_pretrained(model, tokenizer, folder)
    return str(folder)


def tiny(tokenizer, tmp_path, name="base") -> str:
    return saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "there" / name)


def sft_adapters(tokenizer, tmp_path, **options) -> str:
    """A folder of adapters that went through a first stage."""
    policy, _ = load_policy(tiny(tokenizer, tmp_path), lora_rank=4, device="cpu", **options)
    return saved(moved(policy), tokenizer, tmp_path / "there" / "sft")


def lora(base, rank=4, **options):
    return moved(load_policy(base, lora_rank=rank, device="cpu", **options)[0])


def resized(tokenizer, tmp_path):
    policy = load_policy(tiny(tokenizer, tmp_path), lora_rank=4, device="cpu")[0]
    policy.resize_token_embeddings(len(tokenizer) + 8)
    return moved(policy)


def merged_by_hand(tokenizer, tmp_path):
    policy, _ = load_policy("pocket-world", lora_rank=4, device="cpu")
    whole = moved(policy).merge_and_unload()
    from peft import LoraConfig, get_peft_model

    return moved(get_peft_model(whole, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")))


WAYS = {
    "full, shipped": lambda t, p: moved(load_policy("pocket-world", device="cpu")[0]),
    "full, from a folder": lambda t, p: moved(load_policy(tiny(t, p), device="cpu")[0]),
    "adapters on a shipped model": lambda t, p: lora("pocket-world-sft"),
    "adapters on a folder": lambda t, p: lora(tiny(t, p)),
    "adapters trained on": lambda t, p: moved(load_policy(sft_adapters(t, p), device="cpu")[0]),
    "adapters on merged adapters": lambda t, p: lora(sft_adapters(t, p), 8),
    "adapters on a shipped model, merged": lambda t, p: lora(saved(lora("pocket-world"), t, p / "there" / "sft"), 8),
    "adapters on what was merged by hand": merged_by_hand,
    "adapters on resized embeddings": resized,
}
IN_4_BITS = {
    "nf4, shipped": lambda t, p: lora("pocket-world-sft", quantization="nf4"),
    "nf4, from a folder": lambda t, p: lora(tiny(t, p), quantization="nf4"),
    "nf4, merged adapters": lambda t, p: lora(sft_adapters(t, p), 8, quantization="nf4"),
}


def carried_away(model, tokenizer, tmp_path, monkeypatch) -> str:
    """The folder of a saved model on what might be another machine: elsewhere, and nothing else is left."""
    save_pretrained(model, tokenizer, tmp_path / "there" / "last")
    (tmp_path / "here").mkdir()
    shutil.move(tmp_path / "there" / "last", tmp_path / "here" / "model")
    shutil.rmtree(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    return "model"


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_is_loaded_as_it_was_in_memory(way, tokenizer, tmp_path, monkeypatch, batch):
    policy = WAYS[way](tokenizer, tmp_path)
    expected = sequence_logps(policy, **batch)
    again, _ = load_policy(carried_away(policy, tokenizer, tmp_path, monkeypatch), device="cpu")
    torch.testing.assert_close(sequence_logps(again, **batch), expected, atol=1e-4, rtol=1e-5)
    assert any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("way", IN_4_BITS)
def test_a_policy_in_4_bits_is_loaded_as_it_was_in_memory(way, tokenizer, tmp_path, monkeypatch, batch):
    pytest.importorskip("bitsandbytes")
    policy = IN_4_BITS[way](tokenizer, tmp_path)
    expected = sequence_logps(policy, **batch)
    folder = carried_away(policy, tokenizer, tmp_path, monkeypatch)
    again, _ = load_policy(folder, quantization="nf4", device="cpu")
    torch.testing.assert_close(sequence_logps(again, **batch), expected, atol=1e-3, rtol=1e-4)


def test_adapters_trained_in_4_bits_say_so_when_they_lie_on_a_wider_base(tokenizer, tmp_path, caplog):
    pytest.importorskip("bitsandbytes")
    folder = saved(lora("pocket-world-sft", quantization="nf4"), tokenizer, tmp_path / "q")
    load_policy(folder, device="cpu")
    assert "quantization='nf4'" in caplog.text


def reward_on_adapters(tokenizer, tmp_path):
    return moved(load_reward_model(sft_adapters(tokenizer, tmp_path), device="cpu")[0])


REWARDS = {
    "full": lambda t, p: moved(load_reward_model("pocket-world-reward", device="cpu")[0]),
    "a new head on a folder": lambda t, p: moved(load_reward_model(tiny(t, p), device="cpu")[0]),
    "a new head on adapters": reward_on_adapters,
    "loaded once before": lambda t, p: moved(
        load_reward_model(saved(reward_on_adapters(t, p), t, p / "there" / "reward"), device="cpu")[0]
    ),
}


@pytest.mark.parametrize("way", REWARDS)
def test_a_reward_model_is_loaded_with_its_head(way, tokenizer, tmp_path, monkeypatch, batch):
    model = REWARDS[way](tokenizer, tmp_path)
    inputs = batch["input_ids"], batch["attention_mask"]
    expected = sequence_rewards(model, *inputs)
    again, _ = load_reward_model(carried_away(model, tokenizer, tmp_path, monkeypatch), device="cpu")
    torch.testing.assert_close(sequence_rewards(again, *inputs), expected, atol=1e-4, rtol=1e-5)
    assert expected.std() > 1e-3


def test_a_reward_model_on_a_policy_s_adapters_keeps_the_policy_s_body(tokenizer, tmp_path, batch):
    folder = sft_adapters(tokenizer, tmp_path)
    policy, _ = load_policy(folder, device="cpu")
    reward, _ = load_reward_model(folder, device="cpu")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    hidden = policy(**inputs, output_hidden_states=True).hidden_states[-1]
    same = reward(**inputs, output_hidden_states=True).hidden_states[-1]
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(same[real], hidden[real], atol=1e-5, rtol=1e-5)


def test_a_reward_model_with_adapters_trains_them_and_its_head(tokenizer, tmp_path):
    reward, _ = load_reward_model(sft_adapters(tokenizer, tmp_path), device="cpu")
    before = {name: p.detach().clone() for name, p in reward.named_parameters()}
    settings = {"progress": False, "batch_size": 8, "learning_rate": 1e-2, "warmup_ratio": 0}
    RewardTrainer(reward, tokenizer, preference_records(8), TrainingConfig(**settings)).train()
    changed = {name for name, p in reward.named_parameters() if not torch.equal(p, before[name])}
    assert any("lora_" in name for name in changed) and any("score" in name for name in changed)
    assert all("lora_" in name or "score.modules_to_save" in name for name in changed)


def test_adapters_on_a_shipped_model_are_saved_alone_under_its_name(tokenizer, tmp_path):
    save_pretrained(lora("pocket-world-sft"), tokenizer, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pocket-world-sft" and not (tmp_path / "base").exists()


def test_no_path_of_this_machine_is_written(tokenizer, tmp_path):
    save_pretrained(lora(tiny(tokenizer, tmp_path)), tokenizer, tmp_path / "a")
    for path in (tmp_path / "a").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), path


def test_peft_reads_the_base_and_the_adapters_too(tokenizer, tmp_path, batch):
    policy = lora(sft_adapters(tokenizer, tmp_path), 8)
    save_pretrained(policy, tokenizer, tmp_path / "dpo")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "dpo" / "base")
    again = PeftModel.from_pretrained(base, tmp_path / "dpo")
    torch.testing.assert_close(sequence_logps(again, **batch), sequence_logps(policy, **batch), atol=1e-4, rtol=1e-5)


def test_a_full_model_saved_over_adapters_is_not_loaded_as_the_old_adapters(tokenizer, tmp_path, batch):
    save_pretrained(lora(tiny(tokenizer, tmp_path)), tokenizer, tmp_path / "a")
    full = tiny_llama(len(tokenizer), seed=5)
    save_pretrained(full, tokenizer, tmp_path / "a")
    again, _ = load_policy(str(tmp_path / "a"), device="cpu")
    assert torch.equal(sequence_logps(again, **batch), sequence_logps(full, **batch))
    assert not (tmp_path / "a" / "base").exists()


def test_files_that_are_no_model_s_stay(tokenizer, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "step-00000001").mkdir()
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "step-00000001").is_dir()
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_relative_base_is_looked_for_beside_the_adapters(tokenizer, tmp_path, monkeypatch, batch):
    base = tiny(tokenizer, tmp_path)
    policy = lora(base)
    policy.save_pretrained(tmp_path / "there" / "old")  # as peft alone writes it
    config = tmp_path / "there" / "old" / "adapter_config.json"
    config.write_text(config.read_text().replace(json.dumps(str(Path(base).resolve())), '"../base"'))
    monkeypatch.chdir("/")
    again, _ = load_policy(str(tmp_path / "there" / "old"), device="cpu")
    torch.testing.assert_close(sequence_logps(again, **batch), sequence_logps(policy, **batch), atol=1e-4, rtol=1e-5)


def test_adapters_whose_base_has_moved_name_the_base(tokenizer, tmp_path):
    base = tiny(tokenizer, tmp_path)
    lora(base).save_pretrained(tmp_path / "old")
    shutil.rmtree(base)
    with pytest.raises(OSError, match=f"lie on the base model {base}, which is missing"):
        load_policy(str(tmp_path / "old"), device="cpu")


class FullDisk:
    """Stands for a disk that takes a few files and then no more."""

    def __init__(self, after=0):
        self.left = after

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_older_model_and_says_how_much_is_needed(tokenizer, tmp_path, monkeypatch, batch):
    old = tiny_llama(len(tokenizer), seed=4)
    save_pretrained(old, tokenizer, tmp_path)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", FullDisk())
    with pytest.raises(OSError, match=r"need 0\.00 GB; the disk of .* has .* GB free"):
        save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    again, _ = load_policy(str(tmp_path), device="cpu")
    assert torch.equal(sequence_logps(again, **batch), sequence_logps(old, **batch))


def test_a_full_disk_leaves_no_new_folder(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", FullDisk())
    with pytest.raises(OSError, match="could not be saved"):
        save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tokenizer, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="too full"):
        save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickled_checkpoints_are_refused_with_the_way_to_convert_them(file, tokenizer, tmp_path):
    folder = tmp_path / "old"
    if file.startswith("adapter"):
        save_pretrained(lora("pocket-world"), tokenizer, folder)
    else:
        save_pretrained(tiny_llama(len(tokenizer)), tokenizer, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({}, folder / file)
    with pytest.raises(OSError, match=f"{file} is a pickle.*save_pretrained"):
        load_policy(str(folder), device="cpu")


def test_code_that_comes_with_a_checkpoint_is_neither_run_nor_asked_about(tokenizer, tmp_path, monkeypatch):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('the code was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises((OSError, ValueError)):
        load_policy(str(tmp_path), device="cpu")


@pytest.mark.parametrize("keep", [10, 2000])
def test_damaged_weights_are_named(keep, tokenizer, tmp_path):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(OSError, match=r"model\.safetensors is damaged"):
        load_policy(str(tmp_path), device="cpu")


def test_half_of_a_saved_model_is_no_model(tokenizer, tmp_path):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="could not load"):
        load_policy(str(tmp_path), device="cpu")


def test_transformers_reads_a_saved_reward_model(tokenizer, tmp_path, batch):
    model = moved(load_reward_model("pocket-world-reward", device="cpu")[0])
    save_pretrained(model, tokenizer, tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs = batch["input_ids"], batch["attention_mask"]
    assert torch.equal(sequence_rewards(again, *inputs), sequence_rewards(model, *inputs))


def test_a_saved_policy_keeps_quiet(tokenizer, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="course_lib")
    load_policy(saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path), device="cpu")
    assert not [record for record in caplog.records if record.name.startswith("course_lib")]
