"""What claims on memory are held against: equal terms, the fewest GPUs, serving, and the reported table."""

import pytest

from course_lib.claims.reported_memory import REPORTED_PEAKS, fewest_gpus, method_peaks, reported_grid, serving
from course_lib.memory import estimate_memory
from course_lib.sizing import ARCHITECTURES, GB, GPUS


def test_methods_are_compared_on_equal_sequences():
    found = method_peaks(sequences=4)
    assert list(found) == list(REPORTED_PEAKS)
    assert {name: e.settings.rows for name, e in found.items()} == dict.fromkeys(REPORTED_PEAKS, 4)
    with pytest.raises(ValueError, match="even"):
        method_peaks(sequences=3)


def test_the_fewest_gpus_fit_and_one_less_does_not():
    count = fewest_gpus("llama-3-8b", "dpo", "A100-40GB", gradient_checkpointing=True)
    options = {"gradient_checkpointing": True, "zero_stage": 3}
    assert estimate_memory("llama-3-8b", "dpo", gpus=count, **options).fits("A100-40GB")
    assert not estimate_memory("llama-3-8b", "dpo", gpus=count - 1, **options).fits("A100-40GB")
    assert fewest_gpus("llama-3-70b", "ppo", "RTX-3060-12GB", most=4) is None


def test_a_full_gpu_holds_the_sequences_that_serving_says():
    row = serving("llama-3-8b", "H100-80GB", replies=(750,), prompt=250).iloc[0]
    assert row["cache MB"] == pytest.approx(131_072 * 1000 / 1e6)
    cache, weights = row["cache MB"] * 1e6, 2 * ARCHITECTURES["llama-3-8b"].parameters()
    free = GPUS["H100-80GB"].memory - weights - 0.8 * GB
    assert row["fit"] * cache <= free < (row["fit"] + 1) * cache
    assert row["tokens/s"] > row["tokens/s alone"] and row["replies/s"] == pytest.approx(row["tokens/s"] / 750)


def test_frozen_models_left_whole_add_the_rest_of_their_weights():
    grid = reported_grid(gpus=64, sequences=(2,))
    whole, sharded = (
        grid.xs(kind, level="frozen models").loc[(2, "kept", "full", "bf16")] for kind in ("whole", "sharded")
    )
    weights = 2 * ARCHITECTURES["llama-3-8b"].parameters() / GB
    assert (whole - sharded)["SimPO"] == 0 and (whole - sharded)["DPO"] == pytest.approx(weights * 63 / 64)
