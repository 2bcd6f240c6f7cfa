"""The throughput roofline: FLOPs against real models, numbers worked out by hand, and what has to hold always."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory import SMALL
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from course_lib.claims.reported_speed import (
    audit_reported,
    compared_methods,
    decoding_speed,
    phase_seconds,
    speed_ratios,
    turning_batch,
)
from course_lib.sizing import ARCHITECTURES, GPUS, architecture_of
from course_lib.sizing.settings import Role, SpeedSettings
from course_lib.speed import estimate_throughput, simulate_steps
from course_lib.speed.work import backward, decode, forward, prefill, training_batch

POLICY = Role("policy", "lm", True)
LLAMA = ARCHITECTURES["llama-3-8b"]
MATRICES = LLAMA.parameters("none") - 128256 * 4096 - (2 * 32 + 1) * 4096  # a layer's weights without norms, 32 times
H100 = GPUS["H100-80GB"]
CONFIGS = [LlamaConfig(**SMALL), Qwen2Config(**SMALL), Qwen3Config(**SMALL), GemmaConfig(**SMALL),
           MixtralConfig(**SMALL), GPT2Config(n_embd=96, n_layer=2, n_head=4), Gemma2Config(**SMALL),
           Gemma3TextConfig(**SMALL), Phi3Config(**SMALL, pad_token_id=0), GptOssConfig(**SMALL, num_local_experts=4),
           Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
                          mlp_only_layers=[1])]  # fmt: skip


def real_model(config):
    plain = {"experts_implementation": "eager"} if hasattr(config, "num_experts_per_tok") else {}  # else uncounted
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", **plain)


def counted(function, *args) -> tuple[int, object]:
    with FlopCounterMode(display=False) as counter:
        result = function(*args)
    return counter.get_total_flops(), result


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
def test_flops_are_those_of_real_models(config):
    model, arch = real_model(config), architecture_of(config)
    s = SpeedSettings("sft", batch_size=2, sequence_length=48, attention="eager")
    there, out = counted(model, torch.zeros(2, 48, dtype=torch.long))
    assert there == forward(arch, s, POLICY, training_batch(arch, s)).flops
    assert counted(out.logits.sum().backward)[0] == backward(arch, s, POLICY, training_batch(arch, s)).flops


def test_flops_of_adapters_are_those_of_peft():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(real_model(CONFIGS[0]), LoraConfig(r=4, target_modules="all-linear"))
    model.enable_input_require_grads()  # else the first layer needs no gradient of its input
    arch, s = architecture_of(CONFIGS[0]), SpeedSettings("sft", sequence_length=48, attention="eager", lora_rank=4)
    there, out = counted(model, torch.zeros(1, 48, dtype=torch.long))
    assert there == forward(arch, s, POLICY, training_batch(arch, s)).flops
    assert counted(out.logits.sum().backward)[0] == backward(arch, s, POLICY, training_batch(arch, s)).flops


def test_flops_of_sampling_are_those_of_generate():
    model, arch = real_model(CONFIGS[0]).eval(), architecture_of(CONFIGS[0])
    s = SpeedSettings("ppo", sequence_length=40, completion_length=16, attention="eager")
    prompts = torch.ones(3, 24, dtype=torch.long)
    length = {"min_new_tokens": 16, "max_new_tokens": 16, "pad_token_id": 0}
    there, _ = counted(lambda: model.generate(prompts, attention_mask=prompts, do_sample=False, **length))
    assert there == prefill(arch, s, POLICY, 3).flops + decode(arch, s, POLICY, 3).flops


def test_six_flops_a_weight_and_token():
    found = estimate_throughput("llama-3-8b", "sft", batch_size=4, attention="eager")
    weights = MATRICES + 128256 * 4096
    assert found.flops == 6 * weights * 4096 + 3 * 4 * 4 * 1024**2 * 4096 * 32
    assert found.tokens == 4096 and weights == 7_504_658_432  # the embedding is looked up, not multiplied


def test_a_pass_takes_what_its_flops_take():
    found = estimate_throughput("llama-3-8b", "simpo", batch_size=8, attention="eager", utilization=0.5)
    phase = found.phases["policy forward"]
    flops = 2 * (MATRICES + 128256 * 4096) * 16384 + 16 * 4 * 1024**2 * 4096 * 32
    assert phase.flops == flops and phase.seconds == pytest.approx(flops / (989.4e12 * 0.5))
    assert phase.bound == "arithmetic" and phase.intensity > found.ridge


def test_decoding_alone_reads_all_weights_for_each_token():
    found = estimate_throughput("llama-3-8b", "rloo", completion_length=2, bandwidth_utilization=1.0)
    phase = found.phases["rollout decoding"]  # one step: the first token comes from the prefill
    assert phase.bytes == pytest.approx(2 * (MATRICES + 128256 * 4096) + 131072 * 1023, rel=1e-3)
    assert phase.bound == "bandwidth" and phase.seconds == phase.bytes / 3350e9


def test_decoding_turns_at_the_ridge_where_context_is_short():
    batch = turning_batch("llama-3-8b", utilization=1.0, bandwidth_utilization=1.0)
    assert H100.bf16 / H100.bandwidth == pytest.approx(295, abs=1) and 295 < batch < 1.25 * 295


def test_decoding_never_turns_where_keys_take_longer_than_arithmetic():
    assert turning_batch("llama-3-8b", context=512) > 4 * turning_batch("llama-3-8b", context=32)
    assert turning_batch("llama-3-8b", context=1024) == math.inf
    assert turning_batch("llama-2-7b", context=300) == math.inf > turning_batch("llama-3-8b", context=300)


def test_the_turning_batch_is_where_the_bound_changes():
    turn = turning_batch("llama-3-8b", context=64)
    table = decoding_speed("llama-3-8b", batches=(turn - 1, turn), sequence_length=65, completion_length=2)
    assert list(table.bound) == ["bandwidth", "arithmetic"] and table["tokens/s"].is_monotonic_increasing


def test_a_precomputed_reference_makes_dpo_as_fast_as_simpo():
    dpo = estimate_throughput("llama-3-8b", "dpo", reference="precomputed")
    assert dpo.tokens_per_second == estimate_throughput("llama-3-8b", "simpo").tokens_per_second


def test_simpo_over_dpo_by_flops():
    plain, again = (speed_ratios(attention="eager", gradient_checkpointing=c)["FLOPs"] for c in (False, True))
    assert plain["SimPO / DPO"] == pytest.approx(4 / 3)
    assert again["SimPO / DPO"] == pytest.approx(5 / 4, rel=0.01)  # the head is not computed again


def test_simpo_and_adapters_gain_less_than_reported_together():
    for checkpointed in (False, True):
        ratios = speed_ratios(sequences=64, gradient_checkpointing=checkpointed)
        assert ratios.roofline["SimPO / DPO"] < 1.34 < ratios.reported["SimPO / DPO"]
        assert ratios.roofline["SimPO / DPO + LoRA"] == pytest.approx(1, abs=0.05)
        assert ratios.reported["SimPO / DPO + LoRA"] > 1.35


def test_dpo_beats_ppo_twofold_even_if_sampling_is_free():
    ratios = speed_ratios(sequences=8).loc["DPO / PPO"]
    assert 2 < ratios["decoding free"] < 2.25 and 2 < ratios.FLOPs < 2.25  # 9 passes' worth against 4, heads apart
    assert ratios.roofline > 4
    assert 2 < speed_ratios(sequences=128).roofline["DPO / PPO"] < 3


def test_adapters_save_a_quarter_of_dpos_arithmetic_unless_they_run_in_fp32():
    def gain(**options):
        lora = estimate_throughput("llama-3-8b", "dpo", batch_size=32, lora_rank=64, **options)
        return lora.tokens_per_second / estimate_throughput("llama-3-8b", "dpo", batch_size=32).tokens_per_second

    assert 1.25 < gain(adapter_precision="bf16") < 4 / 3 + 0.02
    assert 0.95 < gain(adapter_precision="fp32") < 1.1


def test_the_reported_table_against_itself():
    table = audit_reported()
    spread = table["million tokens"].drop("PPO")
    assert spread.max() / spread.min() < 1.04 and table["million tokens"]["PPO"] > 1.14 * spread.max()
    assert table.utilisation.between(0.15, 0.4).all() and table.utilisation["SimPO"] > 1.3 * table.utilisation["DPO"]


def test_a_shared_prompt_saves_its_second_reading():
    plain, shared = (
        estimate_throughput("llama-3-8b", "dpo", completion_length=256, logits="completion", shared_prompt=s)
        for s in (False, True)
    )
    assert shared.tokens == plain.tokens and 1 < plain.flops / shared.flops < 2048 / 1280
    assert estimate_throughput("llama-3-8b", "dpo", logits="completion").flops < plain.flops * 1.1


def test_a_sliding_layer_meets_the_keys_in_its_window():
    arch, s = replace(LLAMA, window=3, sliding_layers=16), SpeedSettings("sft", sequence_length=5)
    every, near = 1 + 2 + 3 + 4 + 5, 1 + 2 + 3 + 3 + 3
    assert training_batch(arch, s).keys == (every + near) / 2
    far, close = (estimate_throughput(a, "rloo", sequence_length=4096) for a in (LLAMA, replace(arch, window=128)))
    assert close.phases["rollout decoding"].bytes < far.phases["rollout decoding"].bytes
    cached = [found.memory.parts["rollout"]["policy", "kv cache"] for found in (close, far)]
    assert cached[0] / cached[1] == (4096 + 128) / (2 * 4096)


def test_a_shared_prompt_saves_memory_too():
    plain, shared = (
        estimate_throughput("llama-3-8b", "dpo", batch_size=8, shared_prompt=s).memory.peak for s in (False, True)
    )
    assert shared < plain


def test_8_bit_weights_are_read_as_they_are():
    options = {"lora_rank": 16, "completion_length": 2}
    four, eight, wide = (estimate_throughput(LLAMA, "rloo", **options, quantization=q) for q in ("nf4", "int8", None))
    reads = [found.phases["rollout decoding"].bytes for found in (eight, wide, four)]
    assert reads == sorted(reads) and reads[0] < 0.65 * reads[1]


def test_a_mixture_computes_with_the_chosen_experts_and_reads_those_that_any_token_chose():
    dense, sparse = (estimate_throughput(m, "rloo", batch_size=1) for m in ("mistral-7b", "mixtral-8x7b"))
    assert 1.6 < sparse.flops / dense.flops < 2
    many = estimate_throughput("mixtral-8x7b", "rloo", batch_size=64)
    assert many.phases["rollout decoding"].bytes > 3 * sparse.phases["rollout decoding"].bytes
    assert dense.phases["rollout decoding"].bytes < 0.7 * sparse.phases["rollout decoding"].bytes


def test_four_bit_weights_are_read_packed_then_unpacked():
    options = {"lora_rank": 16, "completion_length": 2}
    plain, packed = (estimate_throughput("llama-3-8b", "rloo", **options, quantization=q) for q in (None, "nf4"))
    assert packed.phases["rollout decoding"].bytes > plain.phases["rollout decoding"].bytes
    assert packed.flops == plain.flops


def test_an_optimizer_reads_and_writes_its_states():
    found = estimate_throughput("llama-3-8b", "sft", bandwidth_utilization=1.0)
    assert found.phases["optimizer"].bytes == (2 + 2 * 2 + 2 * 8) * LLAMA.parameters()
    sharded = estimate_throughput("llama-3-8b", "sft", bandwidth_utilization=1.0, gpus=8, zero_stage=1)
    assert sharded.phases["optimizer"].seconds == pytest.approx(found.phases["optimizer"].seconds / 8)


def test_ktos_baseline_reads_mismatched_replies_with_both_models():
    found = estimate_throughput("llama-3-8b", "kto").phases
    assert found["baseline forward"] == found["policy forward"]
    assert found["reference forward"].flops == 2 * found["policy forward"].flops


def test_accumulation_shares_one_optimizer_step():
    once, four = (estimate_throughput("llama-3-8b", "dpo", accumulation=k) for k in (1, 4))
    assert four.phases["optimizer"] == once.phases["optimizer"]
    assert four.phases["backward"].seconds == pytest.approx(4 * once.phases["backward"].seconds)


def test_cost_by_hand():
    found = estimate_throughput("llama-3-8b", "dpo", gpus=64, zero_stage=3, batch_size=2, accumulation=2)
    cost = found.cost(examples=60_000, epochs=2, price_per_gpu_hour=3.0)
    assert found.examples == 256 and cost.steps == 469
    assert cost.hours == pytest.approx(469 * found.step_seconds / 3600)
    assert cost.gpu_hours == 64 * cost.hours and cost.money == 3 * cost.gpu_hours


def test_memory_speaks_where_a_step_does_not_fit():
    assert not estimate_throughput("llama-3-8b", "dpo").fits and "does NOT fit" in str(
        estimate_throughput(LLAMA, "dpo")
    )
    options = {"gpus": 64, "zero_stage": 3, "gradient_checkpointing": True}
    assert estimate_throughput("llama-3-8b", "rloo", **options).fits
    assert not estimate_throughput("llama-3-8b", "rloo", accumulation=1024, **options).fits  # keys and values
    assert estimate_throughput("llama-3-8b", "rloo", accumulation=1024, rollout_batch=16, **options).fits


def test_words_tables_and_plain_values_agree():
    found = estimate_throughput("llama-3-8b", "ppo", batch_size=8, gpus=16, zero_stage=3)
    table = found.table()
    assert table.seconds.sum() == pytest.approx(found.step_seconds) and set(table.index) == set(found.phases)
    assert found.total_tokens_per_second == 16 * found.tokens_per_second
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["tokens_per_second"] == found.tokens_per_second
    assert plain["phases"]["rollout decoding"]["bound"] == "bandwidth" and "rollout decoding" in str(found)
    seconds = phase_seconds(compared_methods("llama-3-8b"))
    assert seconds.loc["SimPO", "reference forward"] == 0 < seconds.loc["DPO", "reference forward"]


MODELS = st.sampled_from(sorted(ARCHITECTURES))
METHODS = st.sampled_from(["sft", "reward", "dpo", "kto", "simpo", "orpo", "ppo", "rloo"])
OPTIONS = st.fixed_dictionaries({"batch_size": st.integers(1, 64), "gradient_checkpointing": st.booleans(),
                                 "sequence_length": st.sampled_from([2, 128, 1000]), "gpu": st.sampled_from(list(GPUS)),
                                 "logits": st.sampled_from(["full", "completion"]),
                                 "lora_rank": st.sampled_from([None, 8])})  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(MODELS, METHODS, OPTIONS)
def test_no_phase_beats_the_datasheet(model, algorithm, options):
    found = estimate_throughput(model, algorithm, **options)
    gpu = GPUS[options["gpu"]]
    assert 0 < found.achieved_utilization <= 0.4 + 1e-9
    assert found.bytes / found.step_seconds <= 0.7 * gpu.bandwidth * (1 + 1e-9)
    assert found.step_seconds == pytest.approx(sum(p.seconds for p in found.phases.values()))


@settings(max_examples=40, deadline=None)
@given(MODELS, METHODS, OPTIONS, st.sampled_from(["utilization", "bandwidth_utilization", "batch_size"]))
def test_more_of_it_never_trains_fewer_tokens_a_second(model, algorithm, options, name):
    less = {"utilization": 0.3, "bandwidth_utilization": 0.3, **options}
    more = less | {name: 2 * less[name]}
    slow, fast = (estimate_throughput(model, algorithm, **o).tokens_per_second for o in (less, more))
    assert fast >= slow * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(MODELS, METHODS, OPTIONS, st.sampled_from([1, 2, 8, 64, 1024]), st.sampled_from([0, 1, 2, 3]))
def test_company_never_makes_a_gpu_faster_than_the_shards_it_saves(model, algorithm, options, gpus, stage):
    alone = estimate_throughput(model, algorithm, **options)
    found = estimate_throughput(model, algorithm, **options, gpus=gpus, zero_stage=stage if gpus > 1 else 0)
    shared = alone.phases["optimizer"].seconds - found.phases["optimizer"].seconds
    assert found.step_seconds >= (alone.step_seconds - shared) * (1 - 1e-9) and shared >= 0


@pytest.mark.parametrize("arguments, options, reason", [
    (("llama-9", "dpo"), {}, "no model 'llama-9'"),
    (("llama-3-8b", "dpq"), {}, "algorithm is one of"),
    ((8e9, "dpo"), {}, "has no layers"),
    (("llama-3-8b", "dpo"), {"gpu": "H9"}, "no GPU 'H9' in the table; it has"),
    (("llama-3-8b", "dpo"), {"gpu": None}, "no GPU None"),
    (("llama-3-8b", "dpo"), {"utilization": 0}, "utilization is a share"),
    (("llama-3-8b", "dpo"), {"bandwidth_utilization": 1.01}, "bandwidth_utilization is a share"),
    (("llama-3-8b", "dpo"), {"link_utilization": float("nan")}, "link_utilization is a share"),
    (("llama-3-8b", "dpo"), {"overlap": -0.1}, "overlap is the share"),
    (("llama-3-8b", "dpo"), {"accumulation": 0}, "accumulation is a whole number"),
    (("llama-3-8b", "dpo"), {"gpus_per_node": 2.5}, "gpus_per_node is a whole number"),
    (("llama-3-8b", "dpo"), {"rollout_batch": 8}, "has no rollouts"),
    (("llama-3-8b", "sft"), {"shared_prompt": True}, "no pairs that share"),
    (("llama-3-8b", "ppo"), {"reference": "precomputed"}, "samples are new"),
    (("llama-3-8b", "ppo"), {"completion_length": 1024}, "starts from a prompt"),
    (("llama-3-8b", "dpo"), {"zero_stage": 3}, "shards nothing"),
    (("gpt2", "sft"), {"sequence_length": 4096}, "positions"),
])  # fmt: skip
def test_nonsense_is_refused_with_the_reason(arguments, options, reason):
    with pytest.raises(ValueError, match=reason):
        estimate_throughput(*arguments, **options)


def test_nonsense_about_runs_is_refused():
    found = estimate_throughput("llama-3-8b", "dpo")
    for wrong in ({"price_per_gpu_hour": 0}, {"price_per_gpu_hour": -2}, {"examples": 0}, {"epochs": math.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a number above 0"):
            found.cost(**{"examples": 100, "price_per_gpu_hour": 2.0} | wrong)
    for wrong in ({"steps": 0}, {"jitter": -1}, {"longest": 0.5}):
        with pytest.raises(ValueError, match="steps is at least 1"):
            simulate_steps(found, **wrong)
    with pytest.raises(ValueError, match="even number"):
        compared_methods(sequences=3)
    with pytest.raises(ValueError, match="context is 2 or more"):
        turning_batch(context=1)


def test_figures_show_every_phase():
    import matplotlib.pyplot as plt

    from course_lib.figures import roofline_plot, time_bars

    found = estimate_throughput("llama-3-8b", "ppo")
    axes = roofline_plot(found.table(), peak=found.peak_flops, bandwidth=H100.bandwidth, utilization=(0.4, 0.7))
    shown = " ".join(text.get_text() for text in [*axes.get_legend().get_texts(), *axes.texts])
    assert all(name in " ".join(shown.split()) for name, phase in found.phases.items() if phase.flops), shown
    table = phase_seconds(compared_methods("llama-3-8b"))
    assert len(time_bars(table, xlabel="s").patches) == table.size
    plt.close("all")
