"""Saving in odd places: changed bases, tied weights, swaps that are cut short, folders of other people."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

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
    "merged by hand, with a name of its own": lambda base, tok, tmp: merged_by_hand("pocket-world"),
    "base changed in one number": lambda base, tok, tmp: changed_in_one_number("pocket-world"),
    "tied embeddings": lambda base, tok, tmp: tied_and_unnamed(tok, tmp),
    "nf4 on a folder": lambda base, tok, tmp: adapted(base, **NF4),
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


def test_another_model_s_folder_called_base_is_never_removed(llama, tokenizer, tmp_path):
    shutil.copytree(llama, tmp_path / "runs" / "base")
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "runs")
    with pytest.raises(OSError, match="something else"):
        save_pretrained(adapted(llama), tokenizer, tmp_path / "runs")
    load_policy(str(tmp_path / "runs" / "base"), device="cpu")
    load_policy(str(tmp_path / "runs"), device="cpu")


def contents(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_a_base_named_by_a_relative_path_is_found_from_another_working_directory(llama, tmp_path, monkeypatch):
    model = adapted(llama)
    model.peft_config["default"].base_model_name_or_path = "llama"
    model.save_pretrained(tmp_path / "adapters")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    loaded, _ = load_policy(str(tmp_path / "adapters"), device="cpu")
    torch.testing.assert_close(logps(loaded), logps(model), atol=0, rtol=0)


def test_a_new_head_that_the_adapters_do_not_hold_is_saved_under_them(tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    reward, _ = load_reward_model("pocket-world", device="cpu")  # a name that stands for no reward head
    reward = get_peft_model(reward, LoraConfig(r=4, target_modules=["q_proj"])).eval()
    save_pretrained(reward, tokenizer, tmp_path)
    loaded, _ = load_reward_model(str(tmp_path), device="cpu")
    rewards = [sequence_rewards(model, IDS, torch.ones_like(IDS)) for model in (reward, loaded)]
    torch.testing.assert_close(*rewards, atol=0, rtol=0)
