"""Saving: what is loaded again, elsewhere, is what was in memory; a save that fails leaves the older model alone."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM, modeling_utils

from course_lib import load_policy, load_reward_model
from course_lib.models import save_pretrained, sequence_rewards

IDS = torch.arange(6, 30).view(2, 12)


def shaken(model):
    """The model after some training: all that is trained has moved."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


@torch.no_grad()
def logps(model):
    return model(input_ids=IDS).logits.float().log_softmax(-1)


@pytest.fixture
def llama(tmp_path, tokenizer):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "llama")
    return str(tmp_path / "llama")


def adapted(base, **options):
    return shaken(load_policy(base, lora_rank=4, device="cpu", **options)[0])


def adapted_twice(base, tokenizer, folder, **options):
    save_pretrained(adapted(base, **options), tokenizer, folder)
    return adapted(str(folder), **options)


def resized(base, tokenizer):
    model, _ = load_policy(base, lora_rank=4, device="cpu")
    model.resize_token_embeddings(len(tokenizer) + 5)
    return shaken(model)


def merged_by_hand(base):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return shaken(get_peft_model(adapted(base).merge_and_unload(), config, adapter_name="dpo"))


def changed_in_one_number(base):
    model = adapted(base)
    with torch.no_grad():
        model.get_base_model().get_input_embeddings().weight[7, 3] += 1
    return model


def tied_and_unnamed(tokenizer, tmp_path, **options):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=True,
    )  # fmt: skip
    save_pretrained(LlamaForCausalLM(config), tokenizer, tmp_path / "tied")
    return adapted(str(tmp_path / "tied"), **options)


NF4 = {"quantization": "nf4"}
WAYS = {
    "full": lambda base, tok, tmp: shaken(load_policy(base, device="cpu")[0]),
    "LoRA on a shipped name": lambda base, tok, tmp: adapted("pocket-world"),
    "LoRA on a folder": lambda base, tok, tmp: adapted(base),
    "LoRA on merged LoRA": lambda base, tok, tmp: adapted_twice(base, tok, tmp / "first"),
    "LoRA on merged LoRA on a name": lambda base, tok, tmp: adapted_twice("pocket-world", tok, tmp / "first"),
    "merged by hand, with a name of its own": lambda base, tok, tmp: merged_by_hand("pocket-world"),
    "resized under LoRA": lambda base, tok, tmp: resized(base, tok),
    "resized under LoRA on a name": lambda base, tok, tmp: resized("pocket-world", tok),
    "base changed in one number": lambda base, tok, tmp: changed_in_one_number("pocket-world"),
    "tied embeddings": lambda base, tok, tmp: tied_and_unnamed(tok, tmp),
    "nf4 on a name": lambda base, tok, tmp: adapted("pocket-world", **NF4),
    "nf4 on a folder": lambda base, tok, tmp: adapted(base, **NF4),
    "nf4 on merged nf4": lambda base, tok, tmp: adapted_twice("pocket-world", tok, tmp / "first", **NF4),
    "nf4 with tied embeddings": lambda base, tok, tmp: tied_and_unnamed(tok, tmp, **NF4),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_loaded_on_another_machine_is_what_was_in_memory(way, llama, tokenizer, tmp_path, monkeypatch):
    options = NF4 if "nf4" in way else {}
    if options:
        pytest.importorskip("bitsandbytes")
    model = WAYS[way](llama, tokenizer, tmp_path).eval()
    monkeypatch.chdir(tmp_path)
    save_pretrained(model, tokenizer, "saved")
    moved = tmp_path / "elsewhere" / "policy"
    shutil.copytree(tmp_path / "saved", moved)
    for other in tmp_path.iterdir():
        if other.name != "elsewhere":
            shutil.rmtree(other)  # nothing of the old machine is left
    (tmp_path / "elsewhere" / "work").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere" / "work")
    loaded, _ = load_policy(str(moved), device="cpu", **options)
    torch.testing.assert_close(logps(loaded), logps(model), atol=0, rtol=0)
    assert not any(str(tmp_path) in path.read_text() for path in moved.rglob("adapter_config.json"))


def test_adapters_on_a_shipped_model_are_saved_alone_under_its_name(tokenizer, tmp_path):
    save_pretrained(adapted("pocket-world"), tokenizer, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "pocket-world"
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("base", ["a folder", "pocket-world"])
def test_a_policy_s_adapters_become_a_reward_model_that_is_saved_with_its_head(base, llama, tokenizer, tmp_path):
    policy = adapted(llama if base == "a folder" else base)
    save_pretrained(policy, tokenizer, tmp_path / "sft")
    reward, _ = load_reward_model(str(tmp_path / "sft"), device="cpu")
    bodies = [m.get_base_model().model(input_ids=IDS).last_hidden_state for m in (policy, reward)]
    torch.testing.assert_close(*bodies, atol=0, rtol=0)
    shaken(reward)
    rewards = sequence_rewards(reward, IDS, torch.ones_like(IDS))
    rewards.sum().backward()
    trained = {name: p.grad for name, p in reward.named_parameters() if p.requires_grad}
    assert any("score" in name for name in trained) and all(grad is not None for grad in trained.values())
    save_pretrained(reward, tokenizer, tmp_path / "reward")
    loaded, _ = load_reward_model(str(tmp_path / "reward"), device="cpu")
    torch.testing.assert_close(sequence_rewards(loaded, IDS, torch.ones_like(IDS)), rewards, atol=0, rtol=0)


def test_a_full_model_saved_over_adapters_is_the_one_loaded_and_other_files_stay(llama, tokenizer, tmp_path):
    folder = tmp_path / "run"
    save_pretrained(adapted(llama), tokenizer, folder)
    (folder / "README.md").write_text("mine")
    full = tiny_llama(len(tokenizer), seed=9)
    save_pretrained(full, tokenizer, folder)
    torch.testing.assert_close(logps(load_policy(str(folder), device="cpu")[0]), logps(full), atol=0, rtol=0)
    assert (folder / "README.md").read_text() == "mine" and not (folder / "base").exists()


def test_another_model_s_folder_called_base_is_never_removed(llama, tokenizer, tmp_path):
    shutil.copytree(llama, tmp_path / "runs" / "base")
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "runs")
    with pytest.raises(OSError, match="something else"):
        save_pretrained(adapted(llama), tokenizer, tmp_path / "runs")
    load_policy(str(tmp_path / "runs" / "base"), device="cpu")
    load_policy(str(tmp_path / "runs"), device="cpu")


def contents(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_leaves_the_older_model_and_no_new_folder(llama, tokenizer, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(modeling_utils, "safe_save_file", full)
    before = contents(Path(llama))
    for folder in (llama, tmp_path / "new"):
        with pytest.raises(OSError, match=r"No space left.*need .* GB; the disk of .* GB free"):
            save_pretrained(tiny_llama(len(tokenizer), seed=3), tokenizer, folder)
    assert contents(Path(llama)) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("after", [0, 3, 7, 9])
def test_an_interrupted_swap_puts_the_older_model_back(after, llama, tokenizer, monkeypatch):
    before, rename, calls = contents(Path(llama)), Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(tiny_llama(len(tokenizer), seed=3), tokenizer, llama)
    assert contents(Path(llama)) == before


def test_pickled_weights_are_refused_with_the_way_to_convert(llama, tokenizer, tmp_path):
    weights = Path(llama, "model.safetensors")
    weights.unlink()
    torch.save(tiny_llama(len(tokenizer)).state_dict(), weights.with_name("pytorch_model.bin"))
    adapted("pocket-world").save_pretrained(tmp_path / "adapters", safe_serialization=False)
    for folder, name in ((llama, "pytorch_model.bin"), (tmp_path / "adapters", "adapter_model.bin")):
        with pytest.raises(OSError, match=rf"{name} is a pickle.*save_pretrained"):
            load_policy(str(folder), device="cpu")


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(llama, monkeypatch):
    config = json.loads(Path(llama, "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    Path(llama, "config.json").write_text(json.dumps(config))
    Path(llama, "own.py").write_text("raise SystemExit('its code was run')")
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("it asked"))
    with pytest.raises(OSError, match="code of its own, which is not run"):
        load_policy(llama, device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors"])
def test_a_half_written_file_is_named(name, llama, tokenizer, tmp_path):
    save_pretrained(adapted("pocket-world"), tokenizer, tmp_path / "adapters")
    file = Path(llama, name) if name == "model.safetensors" else tmp_path / "adapters" / name
    os.truncate(file, 3000)
    with pytest.raises(OSError, match=rf"/{name} is damaged"):
        load_policy(str(file.parent), device="cpu")


def test_a_missing_base_is_named(llama, tokenizer, tmp_path):
    adapted(llama).save_pretrained(tmp_path / "adapters")  # peft's own way: the base's path on this machine
    shutil.rmtree(llama)
    with pytest.raises(OSError, match=rf"lie on the base model {llama}, which is not there"):
        load_policy(str(tmp_path / "adapters"), device="cpu")


def test_a_base_named_by_a_relative_path_is_found_from_another_working_directory(llama, tmp_path, monkeypatch):
    model = adapted(llama)
    model.peft_config["default"].base_model_name_or_path = "llama"
    model.save_pretrained(tmp_path / "adapters")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    loaded, _ = load_policy(str(tmp_path / "adapters"), device="cpu")
    torch.testing.assert_close(logps(loaded), logps(model), atol=0, rtol=0)


def test_adapters_from_4_bits_on_a_wide_base_are_told(tokenizer, tmp_path, caplog):
    pytest.importorskip("bitsandbytes")
    save_pretrained(adapted("pocket-world", **NF4), tokenizer, tmp_path)
    load_policy(str(tmp_path), device="cpu")
    assert "trained on a base in 4 bits" in caplog.text
