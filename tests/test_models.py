"""Loading: shipped, local, LoRA, QLoRA; references; what a bad name gets. Where adapters and 4-bit weights go."""

import math

import pytest
import torch
import transformers
from conftest import tiny_llama

from course_lib import PreferenceConfig, PreferenceTrainer, load_policy, load_reward_model, reference_of, sequence_logps
from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.memory import estimate_memory
from course_lib.models import folder_or_name, save_pretrained, sequence_rewards
from course_lib.models.adapters import add_lora, quantized_share
from course_lib.sizing import architecture_of
from course_lib.world import CHECKPOINTS, preference_records, user


@pytest.fixture
def batch(tokenizer):
    pairs = [tuple(encode_row(r, tokenizer)) for r in preference_records(4)]
    return collate_pairs(pairs, tokenizer.pad_token_id)


@pytest.fixture
def folder(tmp_path, tokenizer):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    return str(tmp_path)


def test_fresh_lora_changes_nothing_and_trains_little(folder, batch):
    full, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    torch.testing.assert_close(sequence_logps(lora, **batch), sequence_logps(full, **batch), atol=0, rtol=0)
    trained = [name for name, p in lora.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


LAYERS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


@pytest.mark.parametrize(("kind", "layer"), LAYERS.items())
def test_a_quantised_policy_scores_nearly_like_the_full_one_and_trains_adapters(kind, layer, folder, batch):
    pytest.importorskip("bitsandbytes")
    full, _ = load_policy(folder, device="cpu")
    quantised, _ = load_policy(folder, lora_rank=4, quantization=kind, device="cpu")
    assert layer in {type(m).__name__ for m in quantised.modules()}
    ours, exact = sequence_logps(quantised, **batch), sequence_logps(full, **batch)
    assert not torch.equal(ours, exact)
    near = {"atol": 5, "rtol": 0.1} if kind == "nf4" else {"atol": 1, "rtol": 0.01}
    torch.testing.assert_close(ours, exact, **near)
    ours.sum().backward()
    assert all(p.grad is not None for n, p in quantised.named_parameters() if "lora_A" in n)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_quantised_policy_trains_its_adapters_against_itself(kind, folder, tokenizer):
    pytest.importorskip("bitsandbytes")
    policy, _ = load_policy(folder, lora_rank=4, quantization=kind, device="cpu")
    config = PreferenceConfig(batch_size=4, learning_rate=1e-2, epochs=4, progress=False, log_every=1)
    trainer = PreferenceTrainer(policy, tokenizer, preference_records(8), config)
    history = trainer.train()
    assert trainer.reference.kind == "adapter-off"
    assert history.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] - 0.02


def test_adapters_on_8_bits_are_loaded_as_they_were_and_say_so_elsewhere(folder, tokenizer, batch, tmp_path, caplog):
    pytest.importorskip("bitsandbytes")
    policy, _ = load_policy(folder, lora_rank=4, quantization="int8", device="cpu")
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_()
    expected = sequence_logps(policy, **batch)
    save_pretrained(policy, tokenizer, tmp_path / "saved")
    again, _ = load_policy(str(tmp_path / "saved"), quantization="int8", device="cpu")
    torch.testing.assert_close(sequence_logps(again, **batch), expected, atol=1e-3, rtol=1e-4)
    assert not caplog.text
    save_pretrained(load_policy("pocket-world-sft", lora_rank=4, quantization="int8")[0], tokenizer, tmp_path / "named")
    load_policy(str(tmp_path / "named"), device="cpu")
    assert "8 bits" in caplog.text and "quantization='int8'" in caplog.text


def test_reference_kinds(folder):
    full, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    assert reference_of(full).kind == "precomputed" and reference_of(lora).kind == "adapter-off"
    copied = reference_of(full, kind="copy").frozen
    assert copied is not full and not any(p.requires_grad for p in copied.parameters())
    with pytest.raises(ValueError, match="precomputed"):
        reference_of(full, kind="adapter-off")


def test_adapters_off_score_exactly_as_the_base_does_after_training_them(folder, batch):
    base, _ = load_policy(folder, device="cpu")
    lora, _ = load_policy(folder, lora_rank=4, device="cpu")
    reference = reference_of(lora)
    with torch.no_grad():
        for name, p in lora.named_parameters():
            if "lora_" in name:
                p.normal_()
    with reference.scoring(lora) as scorer:
        off = sequence_logps(scorer, **batch)
    assert torch.equal(off, sequence_logps(base, **batch))
    assert not torch.equal(sequence_logps(lora, **batch), off)


def test_tokenizers_without_pad_or_template_are_completed(tmp_path, bpe_tokenizer):
    save_pretrained(tiny_llama(len(bpe_tokenizer)), bpe_tokenizer, tmp_path)
    _, tokenizer = load_policy(str(tmp_path), device="cpu")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.apply_chat_template(user("hi"), tokenize=False, add_generation_prompt=True).endswith("Assistant:")


def test_a_policy_becomes_a_reward_model_with_one_output(folder):
    model, _ = load_reward_model(folder, device="cpu")
    assert model.score.out_features == 1


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(OSError, match="(?s)pocket-world-sft.*Without internet"):
        load_policy("someone/no-such-model")


@pytest.mark.parametrize(
    "options",
    [
        {"lora_rank": 0},
        {"quantization": "int3"},
        {"lora_alpha": 8},
        {"lora_targets": ["q_proj"]},
        {"lora_targets": ["no_proj"], "lora_rank": 2},
        {"lora_targets": "q_proj", "lora_rank": 2},
        {"device_map": "auto", "device": "cpu"},
    ],
)
def test_nonsense_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        load_policy("pocket-world", **options)


def test_adapters_go_where_they_are_told_and_weigh_what_they_are_told(folder):
    policy, _ = load_policy(folder, lora_rank=4, lora_alpha=6, lora_targets=["q_proj", "v_proj"])
    trained = {name.split(".lora_")[0].rpartition(".")[2] for name, p in policy.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}
    layer = next(module for module in policy.modules() if hasattr(module, "lora_A"))
    assert layer.scaling["default"] == 6 / 4


def test_the_attention_and_the_places_that_were_asked_for_are_taken(folder, batch):
    eager, _ = load_policy(folder, attention="eager", device_map={"": "cpu"})
    assert eager.config._attn_implementation == "eager" and eager.device.type == "cpu"
    usual, _ = load_policy(folder, device="cpu")
    torch.testing.assert_close(sequence_logps(eager, **batch), sequence_logps(usual, **batch), atol=1e-4, rtol=1e-5)


def test_a_revision_of_adapters_is_refused(folder, tmp_path):
    policy, tokenizer = load_policy(folder, lora_rank=2)
    save_pretrained(policy, tokenizer, tmp_path / "adapters")
    with pytest.raises(ValueError, match="holds adapters"):
        load_policy(str(tmp_path / "adapters"), revision="v1")


def bytes_held(model) -> int:
    """Of all parameters, and of what bitsandbytes keeps beside those in 4 or 8 bits."""
    total = sum(m.weight.SCB.nbytes for m in model.modules() if hasattr(m, "state"))
    for p in model.parameters():
        total += p.numel() * p.element_size()
        if hasattr(p, "quant_state"):
            state = p.quant_state
            beside = [state.absmax, state.code, state.state2.absmax, state.state2.code, state.offset]
            total += sum(t.numel() * t.element_size() for t in beside)
    return total


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "bf16"), (torch.float32, "fp32")])
def test_qlora_takes_the_bytes_that_the_estimate_counts(dtype, precision, kind, folder):
    pytest.importorskip("bitsandbytes")
    model, _ = load_policy(folder, lora_rank=4, quantization=kind, dtype=dtype, device="cpu")
    options = {"precision": precision, "quantization": kind, "lora_rank": 4}
    estimate = estimate_memory(architecture_of(model.config), "sft", **options)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    assert bytes_held(model) + 3 * trained == estimate.states  # the gradients and both moments, as wide as what trains


def experts(kind, tokenizer):
    sizes = dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    if kind == "mixtral":
        return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, num_local_experts=4))
    config = transformers.Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
    return transformers.Qwen3MoeForCausalLM(config)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3-moe"])
@pytest.mark.parametrize(("quantization", "bits"), [("nf4", 4), ("int8", 8)])
def test_experts_that_stay_wide_and_untrained_are_told_with_their_share(
    quantization, bits, kind, tokenizer, tmp_path, caplog
):
    pytest.importorskip("bitsandbytes")
    save_pretrained(experts(kind, tokenizer), tokenizer, tmp_path)
    model, _ = load_policy(str(tmp_path), lora_rank=4, quantization=quantization, dtype=torch.bfloat16, device="cpu")
    share = quantized_share(model.get_base_model())
    assert share < 0.5 and f"only {100 * share:.0f}% of the layers' weights are in {bits} bits" in caplog.text
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("self_attn" in name for name in trained)
    assert "experts held in one tensor a layer: they get no adapters" in caplog.text
    frozen = {p.dtype for name, p in model.named_parameters() if "lora_" not in name}
    assert frozen == {torch.bfloat16, torch.uint8 if bits == 4 else torch.int8}


def test_a_dense_model_in_4_bits_has_nothing_to_tell(folder, caplog):
    pytest.importorskip("bitsandbytes")
    model, _ = load_policy(folder, lora_rank=4, quantization="nf4", device="cpu")
    assert quantized_share(model.get_base_model()) == 1 and "4 bits" not in caplog.text


TEXT = dict(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
SIGHT = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28)


def sees(kind):
    if kind == "llava":
        vision = SIGHT | {"model_type": "clip_vision_model", "patch_size": 14, "projection_dim": 32}
        config = transformers.LlavaConfig(
            vision_config=vision, text_config=TEXT | {"model_type": "llama"}, image_token_index=3
        )
        return transformers.LlavaForConditionalGeneration(config)
    if kind == "gemma3":
        text = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
        config = transformers.Gemma3Config(
            vision_config=SIGHT | {"patch_size": 14}, text_config=text, mm_tokens_per_image=4
        )
        return transformers.Gemma3ForConditionalGeneration(config)
    rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
    vision = dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2)
    config = transformers.Qwen2VLConfig(
        text_config=TEXT | {"num_key_value_heads": 2, "rope_scaling": rope}, vision_config=vision
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


@pytest.mark.parametrize("kind", ["llava", "gemma3", "qwen2-vl"])
def test_lora_adapts_the_language_model_alone_where_a_model_sees_as_well(kind):
    model = add_lora(sees(kind), 4)
    adapted = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert len(adapted) == 2 * 7 and not any("vision" in name or "visual" in name for name in adapted)


class Wrapped(torch.nn.Module):
    """As DistributedDataParallel wraps a model: known to have seen a pass."""

    def __init__(self, module):
        super().__init__()
        self.module, self.passes = module, 0

    def forward(self, *args, **kwargs):
        self.passes += 1
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rewards_go_through_wrappers_and_are_those_of_the_last_real_token(side, folder):
    model, _ = load_reward_model(folder, device="cpu")
    model.config.pad_token_id = None
    row, wrapped = torch.arange(6, 14)[None], Wrapped(model)
    alone = model.score(model.model(input_ids=row).last_hidden_state[:, -1]).flatten().float()
    pads = (3, 0) if side == "left" else (0, 3)
    ids, mask = (torch.nn.functional.pad(t, pads) for t in (row, torch.ones_like(row)))
    rewards = sequence_rewards(wrapped, ids.repeat(2, 1), mask.repeat(2, 1))
    torch.testing.assert_close(rewards, alone.repeat(2))
    assert wrapped.passes == 1 and model.config.pad_token_id is None


def test_a_head_of_another_name_is_refused():
    config = transformers.BertConfig(**TEXT, num_labels=1)
    with pytest.raises(ValueError, match="BertForSequenceClassification has no `score` head"):
        sequence_rewards(transformers.BertForSequenceClassification(config), torch.ones(1, 3).long(), torch.ones(1, 3))


def test_adapters_on_the_hub_that_are_a_pickle_are_refused(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    from course_lib.models.loading import _refuse_pickles_on_hub

    def absent(repository, file):
        raise EntryNotFoundError(f"{file} is not there")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    with pytest.raises(OSError, match="a pickle is not read"):
        _refuse_pickles_on_hub("someone/adapters")


def test_a_name_becomes_the_folder_that_from_pretrained_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    found = [folder_or_name(name) for name in ("pocket-world", "mine", "owner/model")]
    assert found == [str(CHECKPOINTS["pocket-world"]), str(tmp_path / "mine"), "owner/model"]
