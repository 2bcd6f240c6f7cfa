"""The calculators' ground: architectures and GPUs by name, estimates that say what they do not know."""

from dataclasses import replace

import pytest

from course_lib import estimate_memory, estimate_throughput
from course_lib.memory import MemoryEstimate
from course_lib.sizing import ARCHITECTURES, GPU, GPUS, Architecture, architecture_of, gpu_named
from course_lib.speed import ThroughputEstimate


def test_a_published_size_is_met_to_the_weight():
    llama = architecture_of("Llama-3-8B")
    assert isinstance(llama, Architecture) and llama.parameters() == 8_030_261_248
    assert llama.parameters("none") == 8_030_261_248 - 128_256 * 4096  # the head is a second embedding
    assert llama.queries == 4096 and llama.keys == 1024


def test_a_tied_head_costs_nothing():
    llama = ARCHITECTURES["llama-3-8b"]
    tied = replace(llama, tied=True)
    assert tied.parameters() == llama.parameters("none") == tied.parameters("none")


def test_a_gpu_is_found_in_any_case():
    assert gpu_named("a100-80gb") is gpu_named("A100-80GB") is GPUS["A100-80GB"]
    assert isinstance(gpu_named("H100-80GB"), GPU) and gpu_named("H100-80GB").memory < 80 * 2**30
    with pytest.raises(ValueError, match="no GPU 'A1' in the table; it has .*A100-80GB"):
        gpu_named("A1")


def test_a_bare_number_of_parameters_has_states_and_no_peak():
    estimate = estimate_memory(1e9, "sft")
    assert isinstance(estimate, MemoryEstimate) and estimate.states > 0
    assert estimate.peak is estimate.reserved is estimate.phase is None and estimate.gpus_that_fit == []
    with pytest.raises(ValueError, match="shapes"):
        estimate.fits("A100-80GB")


def test_a_peak_is_the_sum_of_its_parts():
    estimate = estimate_memory("llama-3-8b", "dpo", batch_size=1)
    assert estimate.peak == estimate.phases[estimate.phase] == max(estimate.phases.values())
    assert sum(estimate.by_role.values()) == pytest.approx(sum(estimate.by_kind.values())) == estimate.peak
    assert estimate.reserved > estimate.peak


def test_tokens_a_second_are_tokens_over_the_phases_seconds():
    estimate = estimate_throughput("llama-3-8b", "dpo", gpu="H100-80GB")
    assert isinstance(estimate, ThroughputEstimate)
    seconds = sum(phase.seconds for phase in estimate.phases.values())
    assert estimate.tokens_per_second == pytest.approx(estimate.tokens / seconds)
