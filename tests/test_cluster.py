"""What GPUs send one another, by hand, and how a cluster waits for its slowest GPU."""

import numpy as np
import pytest

from course_lib.sizing import ARCHITECTURES
from course_lib.speed import estimate_throughput, scaling, simulate_steps

LLAMA = ARCHITECTURES["llama-3-8b"]


def communicated(**options):
    found = estimate_throughput("llama-3-8b", "sft", **options)
    return found.phases["communication"].bytes, found


def test_an_all_reduce_by_hand():
    sent, found = communicated(gpus=8, link_utilization=1.0, overlap=0.0)
    assert sent == 2 * 7 / 8 * 2 * LLAMA.parameters()
    assert found.link_seconds == pytest.approx(sent / 450e9 + 64 * 7 * 3.4e-6)
    assert found.phases["communication"].seconds == found.link_seconds


def test_zero_3_sends_half_as_much_again():
    volumes = [communicated(gpus=64, zero_stage=stage)[0] for stage in range(4)]
    assert volumes[0] == volumes[1] == volumes[2] and volumes[3] == pytest.approx(1.5 * volumes[0])


def test_accumulation_spares_communication_until_gradients_are_sharded():
    def ratio(stage):
        one, four = (communicated(gpus=64, zero_stage=stage, accumulation=k)[0] for k in (1, 4))
        return four / one

    assert [ratio(stage) for stage in range(4)] == pytest.approx([1, 1, 2.5, 4])


def test_slow_links_bind():
    options = {"gpus": 16, "zero_stage": 3, "gpu": "RTX-4090-24GB", "gpus_per_node": 1}
    found = estimate_throughput("llama-3-8b", "dpo", **options)
    assert found.phases["communication"].seconds > 0.5 * found.step_seconds
    assert found.phases["communication"].bound == "communication"
    hidden = estimate_throughput("llama-3-8b", "dpo", gpus=8, zero_stage=3, batch_size=8, overlap=1.0)
    assert hidden.phases["communication"].seconds == 0 < hidden.link_seconds


def test_without_chance_all_gpus_take_the_estimates_time():
    found = estimate_throughput("llama-3-8b", "ppo", batch_size=4, gpus=16, zero_stage=3)
    assert simulate_steps(found, jitter=0, length_spread=0, steps=2) == pytest.approx(found.step_seconds)


def test_the_slowest_of_many_is_slower_by_the_expected_maximum():
    found = estimate_throughput("llama-3-8b", "sft", gpus=256, overlap=1.0)
    own = found.step_seconds - found.phases["optimizer"].seconds - found.phases["communication"].seconds
    seconds = simulate_steps(found, jitter=0.05, length_spread=0, steps=300) - (found.step_seconds - own)
    draws = np.random.default_rng(1).standard_normal((2000, 256)).max(axis=1)
    assert np.log(seconds / own).mean() == pytest.approx(0.05 * draws.mean(), rel=0.03)


def test_one_seed_gives_one_simulation():
    found = estimate_throughput("llama-3-8b", "ppo", batch_size=4, gpus=8)
    first, second, other = (simulate_steps(found, seed=seed) for seed in (3, 3, 4))
    assert (first == second).all() and not (first == other).all()


def test_waiting_grows_with_the_cluster_and_with_rollouts():
    options = {"batch_size": 4, "gradient_checkpointing": True, "gpus": (1, 8, 64, 512)}
    table = scaling("llama-3-8b", "ppo", **options)
    assert table.waiting.is_monotonic_increasing and table.efficiency.is_monotonic_decreasing
    assert table["tokens/s"].is_monotonic_increasing and list(table.examples) == [4, 32, 256, 2048]
    assert table[["alone", "communication", "waiting"]].sum(axis=1).to_numpy() == pytest.approx(table.seconds)
    sft = scaling("llama-3-8b", "sft", **options)
    assert (sft.waiting / sft.alone < table.waiting / table.alone).all()


def test_thousands_of_gpus_wait_for_the_ring():
    table = scaling("llama-3-8b", "dpo", gpus=(8, 4096), batch_size=2, steps=3)
    assert table.communication[4096] > 10 * table.communication[8]
    assert table.efficiency[4096] < 0.5 < table.efficiency[8]
