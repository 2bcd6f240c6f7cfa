"""The memory calculator against real models: counted weights, tracked steps, and numbers worked out by hand."""

import json
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
)

from course_lib import estimate_memory, load_policy
from course_lib.memory.measured import measure_step, measure_trainer
from course_lib.rewards import learned_reward
from course_lib.sizing import ARCHITECTURES, GB, architecture_of
from course_lib.sizing.settings import CHOICES
from course_lib.trainers import (
    GroupConfig,
    GroupTrainer,
    KTOTrainer,
    PPOConfig,
    PPOTrainer,
    PreferenceTrainer,
    RewardTrainer,
    SFTTrainer,
)

ROOT = Path(__file__).parent.parent
LLAMA_3_8B = ARCHITECTURES["llama-3-8b"]
SMALL = {"vocab_size": 2000, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 3,
         "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}  # fmt: skip
DECODERS = (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Phi3Config, GemmaConfig, Gemma2Config,
            Gemma3TextConfig)  # fmt: skip
MIXTURES = (MixtralConfig, Qwen3MoeConfig, GptOssConfig)


def counted(config, auto=AutoModelForCausalLM) -> int:
    config.num_labels = 1
    with torch.device("meta"):
        return sum(p.numel() for p in auto.from_config(config).parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", [*DECODERS, *MIXTURES])
def test_parameters_are_those_of_real_models(family, tied):
    config = family(**SMALL, tie_word_embeddings=tied, pad_token_id=0, num_local_experts=4, num_experts=4)
    arch = architecture_of(config)
    assert arch.parameters() == counted(config)
    assert arch.parameters("score") == counted(config, AutoModelForSequenceClassification)


@pytest.mark.parametrize("config", [
    LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    Qwen3Config(**SMALL, attention_bias=True),
    GemmaConfig(**SMALL, attention_bias=True),
    Gemma3TextConfig(**SMALL, attention_bias=True),
    Qwen3MoeConfig(**SMALL, attention_bias=True, num_experts=4),
], ids=lambda config: config.model_type)  # fmt: skip
def test_biases_are_counted(config):
    assert architecture_of(config).parameters() == counted(config)


def test_gpt2_and_the_tables_counts():
    config = GPT2Config(n_embd=96, n_layer=2, n_head=4)
    assert architecture_of(config).parameters() == counted(config)
    known = {"llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "mistral-7b": 7_241_732_096,
             "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512,
             "qwen3-0.6b": 596_049_920, "qwen3-8b": 8_190_735_360, "gemma-2b": 2_506_172_416,
             "gemma-7b": 8_537_680_896, "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "mixtral-8x7b": 46_702_792_704,
             "llama-2-7b": 6_738_415_616, "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
             "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
             "gemma-3-1b": 999_885_952, "phi-3-mini": 3_821_079_552, "phi-3-medium": 13_960_238_080,
             "phi-4": 14_659_507_200, "qwen3-30b-a3b": 30_532_122_624, "qwen3-235b-a22b": 235_093_634_560,
             "gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672}  # fmt: skip
    seen_too = {"gemma-3-4b", "gemma-3-12b", "gemma-3-27b"}  # published with what sees counted in
    assert {name: a.parameters() for name, a in ARCHITECTURES.items() if name not in seen_too} == known
    assert LLAMA_3_8B.parameters("none") == 7_504_924_672


GEMMA_3 = {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 1024}
PUBLISHED = {  # as their config.json says, where it differs from transformers' default
    "gemma-2-2b": Gemma2Config(),
    "gemma-2-9b": Gemma2Config(hidden_size=3584, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8,
                               intermediate_size=14336),
    "gemma-2-27b": Gemma2Config(hidden_size=4608, num_hidden_layers=46, num_attention_heads=32, num_key_value_heads=16,
                                head_dim=128, intermediate_size=36864),
    "gemma-3-1b": Gemma3TextConfig(vocab_size=262144, hidden_size=1152, num_attention_heads=4, num_key_value_heads=1,
                                   intermediate_size=6912, sliding_window=512),
    "gemma-3-4b": Gemma3Config(text_config={"hidden_size": 2560, "num_hidden_layers": 34, "intermediate_size": 10240,
                                            **GEMMA_3}),
    "gemma-3-12b": Gemma3Config(text_config=GEMMA_3 | {
        "hidden_size": 3840, "num_hidden_layers": 48, "intermediate_size": 15360, "num_attention_heads": 16,
        "num_key_value_heads": 8}),
    "gemma-3-27b": Gemma3Config(text_config=GEMMA_3 | {
        "hidden_size": 5376, "num_hidden_layers": 62, "intermediate_size": 21504, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128}),
    "phi-3-mini": Phi3Config(sliding_window=2047),
    "phi-3-medium": Phi3Config(hidden_size=5120, num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=10,
                               intermediate_size=17920, sliding_window=2047),
    "phi-4": Phi3Config(vocab_size=100352, hidden_size=5120, num_hidden_layers=40, num_attention_heads=40,
                        num_key_value_heads=10, intermediate_size=17920, pad_token_id=0),
    "qwen3-30b-a3b": Qwen3MoeConfig(num_hidden_layers=48, head_dim=128),
    "qwen3-235b-a22b": Qwen3MoeConfig(hidden_size=4096, num_hidden_layers=94, num_attention_heads=64, head_dim=128,
                                      moe_intermediate_size=1536, intermediate_size=12288),
    "gpt-oss-20b": GptOssConfig(num_hidden_layers=24, num_local_experts=32),
    "gpt-oss-120b": GptOssConfig(),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_rows_are_what_configs_say_and_models_weigh(name):
    known, config = ARCHITECTURES[name], PUBLISHED[name]
    assert replace(architecture_of(config), name=name) == known
    assert known.parameters() == counted(config.get_text_config())


def test_some_layers_of_a_mixture_may_be_dense():
    plain = {"mlp_only_layers": [0], "decoder_sparse_step": 3}
    config = Qwen3MoeConfig(**SMALL, **plain, num_experts=4, moe_intermediate_size=64)
    arch = architecture_of(config)
    assert arch.dense_layers == (0, 1) and arch.parameters() == counted(config)


def test_an_unknown_family_with_a_llamas_weights_is_read_from_its_config_with_a_word(caplog):
    config = GraniteConfig(**{k: v for k, v in SMALL.items() if k != "head_dim"})
    assert architecture_of(config).parameters() == counted(config)
    assert "granite models are not known here" in caplog.text
    truth, found = (f(config, "sft", sequence_length=64).peak for f in (measure_step, estimate_memory))
    assert found == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("config, reason", [
    (Olmo2Config(**SMALL, pad_token_id=0), "'olmo2' are not counted here: this one's .* shapes of a Llama's"),
    (T5Config(), "'t5' are not counted here.*it has no intermediate_size"),
], ids=lambda v: getattr(v, "model_type", ""))  # fmt: skip
def test_an_unknown_family_is_refused_by_name_with_what_is_known(config, reason):
    with pytest.raises(ValueError, match=f"(?s){reason}.*known are llama.*gpt_oss.*number of parameters"):
        estimate_memory(config, "sft")


def test_of_a_model_that_sees_the_language_model_is_counted_with_a_word(caplog):
    text = {**SMALL, "sliding_window": 64}
    found = architecture_of(Gemma3Config(text_config=text))
    assert found == architecture_of(Gemma3TextConfig(**text)) and "language model alone" in caplog.text


def test_states_by_hand():
    assert estimate_memory(8e9, "dpo").states == estimate_memory("8e9", "dpo").states == 112e9
    assert estimate_memory(8e9, "ppo").states == 224e9
    assert estimate_memory(8e9, "ppo").by_role == {"actor": 96e9, "critic": 96e9, "reward": 16e9, "reference": 16e9}
    assert estimate_memory(8e9, "simpo").states == 96e9
    assert estimate_memory(8e9, "dpo", zero_stage=3, gpus=8).states == 14e9
    assert estimate_memory(8e9, "dpo", zero_stage=1, gpus=8).states == (16 + 16 + 16 + 8) * 1e9
    assert estimate_memory(8e9, "dpo", optimizer="adamw-master", reference="precomputed").states == 128e9
    real = estimate_memory("llama-3-8b", "ppo").states
    assert real == 14 * 8_030_261_248 + 14 * (7_504_924_672 + 4096)


# Llama-3-8B in bf16 with torch's fused AdamW: tracked device-free, as in `measure_step`.
@pytest.mark.parametrize("algorithm, options, peak, phase", [
    ("sft", {}, 64.513, "backward"),
    ("sft", {"fused": False}, 80.303, "optimizer"),
    ("sft", {"batch_size": 4, "sequence_length": 2048}, 115.810, "backward"),
    ("dpo", {}, 81.146, "reference forward"),
    ("dpo", {"gradient_checkpointing": True, "lora_rank": 64}, 22.319, "reference forward"),
    ("dpo", {"gradient_checkpointing": True, "optimizer": "adamw-fp32"}, 118.795, "optimizer"),
    ("simpo", {}, 64.560, "backward"),
    ("ppo", {}, 155.360, "backward"),
    ("dpo", {"batch_size": 2, "sequence_length": 2048, "gradient_checkpointing": True, "precision": "autocast",
             "optimizer": "adamw-fp32", "zero_stage": 3, "gpus": 64}, 23.331, "reference forward"),
])  # fmt: skip
def test_an_8b_model_needs_what_was_tracked(algorithm, options, peak, phase):
    found = estimate_memory("llama-3-8b", algorithm, **({"optimizer": "adamw"} | options))
    assert found.peak / GB == pytest.approx(peak, rel=4e-3) and found.phase == phase


def test_parts_add_up_and_words_are_plain():
    found = estimate_memory("llama-3-8b", "ppo", batch_size=4, gradient_checkpointing=True)
    assert sum(found.by_role.values()) == pytest.approx(found.peak) == pytest.approx(sum(found.by_kind.values()))
    assert found.phases[found.phase] == max(found.phases.values()) == found.peak < found.reserved
    assert found.table().sum(axis=1)[found.phase] == pytest.approx(found.peak / GB)
    assert "peak" in str(found) and "GiB" in str(found) and found.advice
    assert "kv cache" in {kind for _, kind in found.parts["rollout"]}


def test_what_fits_follows_from_reserved():
    small = estimate_memory("qwen2.5-0.5b", "dpo", lora_rank=16)
    assert small.fits("h100-80gb") and "RTX-4090-24GB" in small.gpus_that_fit
    assert not estimate_memory("llama-3-8b", "ppo").fits("H100-80GB")
    with pytest.raises(ValueError, match="no GPU 'H9'"):
        small.fits("H9")


def test_each_saving_saves():
    base = {"batch_size": 4, "optimizer": "adamw"}
    dpo = estimate_memory("llama-3-8b", "dpo", **base).peak
    for change in ({"gradient_checkpointing": True}, {"lora_rank": 16}, {"reference": "precomputed"},
                   {"reference_order": "before"}, {"zero_stage": 3, "gpus": 8}, {"logits": "chunked"},
                   {"zero_stage": 1, "offload": "optimizer"}):  # fmt: skip
        assert estimate_memory("llama-3-8b", "dpo", **base | change).peak < dpo, change
    assert estimate_memory("llama-3-8b", "dpo", **base, attention="eager").peak > dpo
    lora = estimate_memory("llama-3-8b", "dpo", lora_rank=16)
    assert estimate_memory("llama-3-8b", "dpo", lora_rank=16, quantization="nf4").states < 0.45 * lora.states


@pytest.mark.parametrize("arguments, options, reason", [
    (("llama-9", "dpo"), {}, "no model 'llama-9'"),
    (("llama-3-8b", "dpq"), {}, "algorithm is one of"),
    (("llama-3-8b", "dpo"), {"lora_rank": 0}, "lora_rank is a whole number"),
    (("llama-3-8b", "dpo"), {"batch_size": 1.5}, "batch_size is a whole number"),
    (("llama-3-8b", "dpo"), {"quantization": "nf4"}, "give lora_rank"),
    (("llama-3-8b", "dpo"), {"reference": "adapter-off"}, "none to switch off"),
    (("llama-3-8b", "dpo"), {"zero_stage": 3}, "shards nothing"),
    (("llama-3-8b", "dpo"), {"zero_stage": 2, "gpus": 2, "offload": "parameters"}, "needs it"),
    (("llama-3-8b", "dpo"), {"completion_length": 2000}, "longer than the sequence"),
    (("llama-3-8b", "dpo"), {"quantization": "int8"}, "give lora_rank"),
    (("gemma-2-2b", "dpo"), {"attention": "sdpa"}, "caps on its scores"),
    (("gpt-oss-20b", "dpo"), {"attention": "sdpa"}, "sinks"),
    (("llama-3-8b", "sft"), {"shared_prompt": True}, "no pairs that share"),
    (("llama-3-8b", "dpo"), {"shared_prompt": True}, "without a prompt"),
    (("gemma-3-1b", "dpo"), {"shared_prompt": True, "completion_length": 512}, "longer than the window"),
    (("gpt2", "sft"), {"sequence_length": 4096}, "positions"),
    ((LlamaConfig(num_attention_heads=5, num_key_value_heads=2, hidden_size=80, head_dim=16), "sft"), {}, "divide"),
    ((-1, "dpo"), {}, "at least 1"),
    ((8e9, "dpo"), {"lora_rank": 8}, "shapes of the layers"),
    ((None, "dpo"), {}, "is no model"),
    ((LlamaConfig(num_hidden_layers=0), "dpo"), {}, "at least one of each"),
    (("llama-3-8b", "dpo"), {"batch_size": 10**400}, "whole number"),
    ((True, "dpo"), {}, "is no model"),
    ((float("nan"), "dpo"), {}, "at least 1"),
    (("inf", "dpo"), {}, "at least 1"),
    (("llama-3-8b", "dpo"), {"batch_size": float("inf")}, "batch_size is a whole number"),
    (("llama-3-8b", "dpo"), {"sequence_length": float("nan")}, "sequence_length is a whole number"),
    (("llama-3-8b", "dpo"), {"sequence_length": None}, "sequence_length is a whole number"),
    (("llama-3-8b", "dpo"), {"batch_size": "4"}, "batch_size is a whole number"),
    (("llama-3-8b", "dpo"), {"batch_size": True}, "batch_size is a whole number"),
    (("llama-3-8b", "dpo"), {"gpus": 0}, "gpus is a whole number"),
    (("llama-3-8b", "dpo"), {"zero_stage": True, "gpus": 2}, "zero_stage is one of"),
    (("llama-3-8b", "dpo"), {"fused": "no"}, "fused is one of"),
    (("llama-3-8b", "dpo"), {"offload": "optimizer"}, "part of ZeRO"),
])  # fmt: skip
def test_nonsense_is_refused_with_the_reason(arguments, options, reason):
    with pytest.raises(ValueError, match=reason):
        estimate_memory(*arguments, **options)


def test_a_bare_number_has_states_and_no_peak():
    found = estimate_memory(8_030_261_248, "sft")
    assert found.states == 12 * 8_030_261_248 == sum(found.by_kind.values())
    assert found.peak is found.reserved is found.phase is None and not found.gpus_that_fit and not found.advice
    assert not {"peak", "fits"} & {line.split(" ")[0] for line in str(found).splitlines()}
    assert json.loads(json.dumps(found.to_dict()))["peak"] is None
    with pytest.raises(ValueError, match="depends on the model's shapes"):
        found.fits("H200-141GB")


@pytest.mark.parametrize("options", [
    {"batch_size": 64}, {"sequence_length": 8192}, {"completion_length": 8}, {"gradient_checkpointing": True},
    {"attention": "eager"}, {"logits": "chunked"}, {"fused": False}, {"reference_order": "before"},
    {"adapter_precision": "bf16"}, {"shared_prompt": True, "completion_length": 64},
])  # fmt: skip
def test_options_that_cannot_matter_to_a_bare_number_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}.* cannot matter to a bare number"):
        estimate_memory("8e9", "dpo", **options)


def test_a_call_takes_milliseconds():
    estimate_memory("llama-3-70b", "ppo")
    started = time.process_time()
    for _ in range(5):
        assert estimate_memory("llama-3-70b", "ppo", lora_rank=8, zero_stage=3, gpus=64).peak
    assert (time.process_time() - started) / 5 < 0.05


def test_nf4_counts_as_bitsandbytes_stores_it():
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(640, 256, dtype=torch.bfloat16)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    parts = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    from course_lib.memory.states import weight_bytes
    from course_lib.sizing.settings import Settings
    from course_lib.sizing.shapes import Weight

    settings = Settings("dpo", lora_rank=4, quantization="nf4")
    assert weight_bytes(Weight("linear", (640, 256), linear=True), settings) == sum(p.nbytes for p in parts)


def test_8_bit_weights_count_as_bitsandbytes_stores_them():
    functional = pytest.importorskip("bitsandbytes.functional")
    from course_lib.memory.states import weight_bytes
    from course_lib.sizing.settings import Settings
    from course_lib.sizing.shapes import Weight

    codes, scales, _ = functional.int8_vectorwise_quant(torch.randn(640, 256, dtype=torch.float16))
    settings = Settings("dpo", lora_rank=4, quantization="int8")
    assert weight_bytes(Weight("linear", (640, 256), linear=True), settings) == codes.nbytes + scales.nbytes


def test_eight_bit_moments_count_as_bitsandbytes_stores_them():
    optimizers = pytest.importorskip("bitsandbytes.optim")
    from course_lib.memory.states import optimizer_bytes

    for size in (4000, 5000):
        p = torch.nn.Parameter(torch.zeros(size))
        p.grad = torch.zeros_like(p)
        adam = optimizers.AdamW8bit([p])
        adam.init_state(adam.param_groups[0], p, 0, 0)
        held = sum(t.nbytes for name, t in adam.state[p].items() if torch.is_tensor(t) and "qmap" not in name)
        assert optimizer_bytes(size, 4, "adamw-8bit") == held


def test_the_tracker_sees_the_same_with_and_without_data():
    options = {"sequence_length": 64, "lora_rank": 4, "gradient_checkpointing": True}
    fake, real = (measure_step(LlamaConfig(**SMALL), "dpo", fake=fake, **options) for fake in (True, False))
    assert fake.states == real.states
    assert fake.peak == pytest.approx(real.peak, rel=2e-3)


def test_logits_of_a_single_chunk_are_held_while_the_reference_reads():
    config = LlamaConfig(**SMALL)
    options = {"sequence_length": 256, "logits": "chunked", "gradient_checkpointing": True}
    measured = measure_step(config, "dpo", **options).phases["reference forward"]
    assert estimate_memory(config, "dpo", **options).phases["reference forward"] == pytest.approx(measured, rel=0.01)


PROMPT, COMPLETION = 40, 23  # words; the end-of-sequence token is one more
TRAINERS = {
    "sft": (SFTTrainer, "sft", {}, {}),
    "dpo, a copy": (PreferenceTrainer, "dpo", {"reference": "copy"}, {}),
    "dpo, adapters off": (PreferenceTrainer, "dpo", {"reference": "adapter-off"}, {"lora_rank": 8}),
    "dpo, precomputed": (PreferenceTrainer, "dpo", {"reference": "precomputed"}, {}),
    "simpo": (PreferenceTrainer, "simpo", {"loss": "simpo"}, {}),
    "kto, a copy": (KTOTrainer, "kto", {"reference": "copy"}, {"reference_order": "before"}),
    "reward": (RewardTrainer, "reward", {}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name, precision", [*((name, "fp32") for name in TRAINERS), ("dpo, a copy", "autocast")])
def test_the_courses_trainers_need_what_is_estimated(name, precision, monkeypatch):
    monkeypatch.setattr("course_lib.trainers.reward.why_pairs_not_shared", lambda *args, **options: "told not to")
    trainer, algorithm, arguments, options = TRAINERS[name]
    config = LlamaConfig(**SMALL, pad_token_id=0)
    given = {"batch_size": 4, "mixed_precision": "bf16" if precision == "autocast" else "no", "progress": False}
    if trainer is PreferenceTrainer:
        given["share_prompt"] = False

    def build():
        config.num_labels = 1
        auto = AutoModelForSequenceClassification if algorithm == "reward" else AutoModelForCausalLM
        model = auto.from_config(config)
        lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, lora) if "lora_rank" in options else model

    def train(model):
        trainer(model, words(), records(algorithm), trainer.config_class(**given), **arguments).train()

    reference = {k: v for k, v in arguments.items() if k == "reference"}
    found = estimate_memory(config, algorithm, **options, **reference, precision=precision, optimizer="adamw",
                            logits="chunked", batch_size=4, sequence_length=PROMPT + COMPLETION + 1,
                            completion_length=COMPLETION + 1)  # fmt: skip
    assert found.peak == pytest.approx(measure_trainer(build, train), rel=0.05)


SHARED = {  # trainer, method, the trainer's arguments, LoRA's rank, attention, precision, checkpointing
    "dpo, a copy": (PreferenceTrainer, "dpo", {"reference": "copy"}, None, "sdpa", "fp32", False),
    "dpo, precomputed": (PreferenceTrainer, "dpo", {"reference": "precomputed"}, None, "sdpa", "autocast", False),
    "dpo, adapters off": (PreferenceTrainer, "dpo", {"reference": "adapter-off"}, 8, "sdpa", "fp32", True),
    "dpo, eager": (PreferenceTrainer, "dpo", {"reference": "copy"}, None, "eager", "fp32", True),
    "simpo": (PreferenceTrainer, "simpo", {"loss": "simpo"}, None, "sdpa", "fp32", False),
    "reward": (RewardTrainer, "reward", {}, None, "sdpa", "fp32", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_trainers_that_share_prompts_need_what_is_estimated(name):
    trainer, algorithm, arguments, rank, attention, precision, again = SHARED[name]
    config = LlamaConfig(**SMALL, pad_token_id=0, num_labels=1)

    def build():
        auto = AutoModelForSequenceClassification if algorithm == "reward" else AutoModelForCausalLM
        model = auto.from_config(config, attn_implementation=attention)
        lora = LoraConfig(r=rank or 1, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, lora) if rank else model

    def train(model):
        given = {"batch_size": 4, "mixed_precision": "bf16" if precision == "autocast" else "no"}
        settings = trainer.config_class(**given, gradient_checkpointing=again, progress=False)
        made = trainer(model, words(), records(algorithm, 200, 59), settings, **arguments)
        made.train()
        assert made.shared

    options = {"precision": precision, "gradient_checkpointing": again, "attention": attention, "lora_rank": rank}
    options |= {"reference": arguments.get("reference"), "batch_size": 4, "optimizer": "adamw", "logits": "chunked",
                "sequence_length": 260, "completion_length": 60}  # fmt: skip
    measured = measure_trainer(build, train)
    assert estimate_memory(config, algorithm, **options, shared_prompt=True).peak == pytest.approx(measured, rel=0.02)
    assert estimate_memory(config, algorithm, **options).peak > 1.1 * measured


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize(("kind", "dtype"), [("nf4", "fp32"), ("nf4", "bf16"), ("int8", "fp32"), ("int8", "bf16")])
def test_training_on_quantised_weights_needs_what_is_estimated(kind, dtype, again, tmp_path, monkeypatch):
    """bitsandbytes' own steps; in 8 bits by the function that it takes on GPUs."""
    functions = pytest.importorskip("bitsandbytes.autograd._functions")
    monkeypatch.setattr(functions, "MatMul8bitFp", functions.MatMul8bitLt)
    config = LlamaConfig(**SMALL | {"num_hidden_layers": 6}, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)

    def build():
        wide = torch.float32 if dtype == "fp32" else torch.bfloat16
        return load_policy(str(tmp_path), lora_rank=8, quantization=kind, dtype=wide, device="cpu")[0]

    def train(model):
        settings = SFTTrainer.config_class(batch_size=4, gradient_checkpointing=again, progress=False)
        SFTTrainer(model, words(), records("sft"), settings).train()

    options = {"precision": dtype, "gradient_checkpointing": again, "batch_size": 4, "optimizer": "adamw"}
    options |= {"logits": "chunked", "sequence_length": PROMPT + COMPLETION + 1, "completion_length": COMPLETION + 1}
    found = estimate_memory(config, "sft", quantization=kind, lora_rank=8, **options)
    assert found.peak == pytest.approx(measure_trainer(build, train), rel=0.02)


def test_checkpointing_does_not_let_go_of_what_8_bit_layers_keep():
    def held(quantization):
        options = {"lora_rank": 8, "gradient_checkpointing": True, "quantization": quantization, "batch_size": 8}
        return estimate_memory("llama-3-8b", "sft", **options).parts["policy forward"]["policy", "activations"]

    inputs = 3 * 4096 + 14336  # of queries, keys and values; of the output; of gate and up; of down
    assert held("int8") - held("nf4") == pytest.approx(2 * inputs * 8 * 1024 * 32, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "critic"), [("ppo", "separate"), ("ppo", "shared"), ("rloo", ""), ("grpo", "")])
def test_trainers_on_their_own_samples_need_what_is_estimated(algorithm, critic):
    """Four rows are drawn, scored by all models, and trained on together; a reward model is held."""
    config = LlamaConfig(**SMALL, pad_token_id=0, num_labels=1)
    common = {"batch_size": 4, "rollout_batch": 4, "max_new_tokens": COMPLETION + 1, "progress": False}

    def build():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)

    def train(model):
        judge = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).eval()
        prompts, score = [{"prompt": row["prompt"]} for row in records("sft")], learned_reward(judge, words())
        if algorithm == "ppo":
            settings = PPOConfig(prompts_per_rollout=4, critic=critic, **common)
            trainer = PPOTrainer(model, words(), prompts, settings, reward=score)
        else:
            settings = GroupConfig(loss=algorithm, prompts_per_rollout=1, completions=4, **common)
            trainer = GroupTrainer(model, words(), prompts, settings, reward=score)
        trainer.train()
        assert trainer.rollout.lengths.tolist() == [COMPLETION + 1] * 4  # or less would be held than is estimated

    found = estimate_memory(config, algorithm, **({"critic": critic} if critic else {}), precision="fp32",
                            optimizer="adamw", logits="chunked", batch_size=4, sequence_length=PROMPT + COMPLETION,
                            completion_length=COMPLETION + 1)  # fmt: skip
    assert found.peak == pytest.approx(measure_trainer(build, train), rel=0.05)


def words() -> PreTrainedTokenizerFast:
    """A tokenizer for which each word is a token."""
    vocabulary = {"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, SMALL["vocab_size"])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def records(algorithm: str, prompt: int = PROMPT, completion: int = COMPLETION) -> list[dict]:
    """Two batches of rows of one length."""

    def text(start, count):
        return " ".join(f"w{2 + (start + i) % 1900}" for i in range(count))

    rows = []
    for i in range(8):
        row = {"prompt": text(i, prompt) + " "}
        one, other = text(50 + i, completion), text(90 + i, completion)
        kinds = {"sft": {"completion": one}, "kto": {"completion": one, "label": i % 2 == 0}}
        rows.append(row | kinds.get(algorithm, {"chosen": one, "rejected": other}))
    return rows


def random_model(r: random.Random):
    """A small model of a random family and shape."""
    heads, size, layers = r.choice([2, 4, 8]), r.choice([32, 64]), r.randint(1, 4)
    vocabulary, hidden = r.choice([500, 2000, 8000]), heads * size
    family = r.choice((*DECODERS, GPT2Config, *MIXTURES))
    if family is GPT2Config:
        plain = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
        return GPT2Config(vocab_size=vocabulary, n_embd=hidden, n_layer=layers, n_head=heads, **plain)
    few = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": r.choice([1, 2]), "pad_token_id": 0}
    if family is Qwen3MoeConfig:
        few |= {"moe_intermediate_size": r.choice([32, 96]), "mlp_only_layers": r.choice([[], [0]])}
    if family in (Gemma2Config, Gemma3TextConfig, GptOssConfig):
        few |= {"sliding_window": r.choice([16, 64]), "sliding_window_pattern": 2}
        hidden = r.choice([hidden, 2 * hidden, 96])  # not always heads times their size
    return family(
        vocab_size=vocabulary, tie_word_embeddings=r.random() < 0.4, hidden_size=hidden, head_dim=size, **few,
        intermediate_size=int(hidden * r.choice([2.5, 3.5, 8])), num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=r.choice([h for h in (1, 2, heads) if heads % h == 0]),
    )  # fmt: skip


def random_options(r: random.Random, experts: bool) -> dict:
    """A random way to train a model."""
    length = r.choice([32, 128, 256])
    options = {
        "batch_size": r.choice([1, 2, 3, 4]), "sequence_length": length, "attention": r.choice(["flash", "eager"]),
        "optimizer": r.choice(["adamw-fp32", "adamw", "adamw-master", "adamw-8bit"]), "fused": r.random() < 0.7,
        "precision": "bf16" if experts else r.choice(["bf16", "bf16", "fp32", "autocast"]),
        "gradient_checkpointing": r.random() < 0.4, "logits": r.choice(["full", "completion", "chunked"]),
        "reference_order": r.choice(["after", "before"]), "reward_model": r.random() < 0.5,
        "critic": r.choice(["separate", "shared"]), "completion_length": r.choice([None, 8, length // 2]),
        "reference": r.choice([None, "copy", "precomputed"]),
    }  # fmt: skip
    if r.random() < 0.4:
        options |= {"lora_rank": r.choice([4, 16, 64]), "adapter_precision": r.choice(["fp32", "bf16"])}
    return options


@pytest.mark.slow
def test_random_steps_need_what_is_estimated():
    errors = {}
    for seed in range(40):
        r = random.Random(f"held out {seed}")
        config = random_model(r)
        algorithm, options = r.choice(CHOICES["algorithm"]), random_options(r, type(config) in MIXTURES)
        truth = measure_step(config, algorithm, **options)
        found = estimate_memory(config, algorithm, **options)
        setting = f"seed {seed}: {config.model_type} {algorithm} {options}"
        assert found.states == truth.states, setting
        errors[setting] = abs(found.peak / truth.peak - 1)
    assert statistics.median(errors.values()) < 0.01 and max(errors.values()) < 0.05, errors
