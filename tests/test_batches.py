"""How a batch is dealt out to processes: as one process would have formed it, and to all of them alike."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from conftest import tiny_llama

from course_lib import SFTTrainer, TrainingConfig
from course_lib.models import save_pretrained
from course_lib.rollouts import roll_out
from course_lib.trainers.batches import RecordBatches, StandIn
from course_lib.trainers.loop import terms_of, to_device
from course_lib.trainers.rollout_batches import RolloutBatches
from course_lib.trainers.sharded import is_sharded
from course_lib.trainers.together import joined, my_part
from course_lib.world import prompts, sft_records

LENGTHS = [(37 * i) % 50 for i in range(61)]
CLASSES = [int(i % 3 == 0) for i in range(61)]


def dealt(process: int, processes: int, accumulation: int = 1, groups=None) -> list[list[list[int]]]:
    """The rows of two epochs' micro-batches on one process."""
    batches = RecordBatches(LENGTHS, groups, lambda rows: {"rows": rows}, batch_size=16, accumulation=accumulation,
                            share=(process, processes))  # fmt: skip
    return [[part["rows"] for part in batches.take()] for _ in range(2 * len(batches))]


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("groups", [None, CLASSES])
def test_processes_share_the_batches_of_one(processes, groups):
    alone = dealt(0, 1, groups=groups)
    shares = [dealt(process, processes, groups=groups) for process in range(processes)]
    for (batch,), *parts in zip(alone, *shares, strict=True):
        rows = [row for (part,) in parts for row in part]
        assert sorted(rows) == sorted(batch)
        sizes = [len(part) for (part,) in parts]
        assert max(sizes) - min(sizes) <= 1
        if groups:
            of_one_class = [sum(groups[row] for row in part) for (part,) in parts]
            assert max(of_one_class) - min(of_one_class) <= 1


def test_shares_of_a_batch_are_of_similar_length():
    for first, second in zip(dealt(0, 2), dealt(1, 2), strict=True):
        longest = [max(LENGTHS[row] for row in part[0]) for part in (first, second)]
        assert abs(longest[0] - longest[1]) <= 3


def test_every_process_has_as_many_micro_batches_none_of_them_empty():
    for process in range(3):
        assert all(len(parts) == 4 and all(parts) for parts in dealt(process, 3, accumulation=4))


def test_a_process_without_a_row_gets_a_stand_in_that_counts_nothing(tiny_model, tokenizer):
    trainer = SFTTrainer(tiny_model, tokenizer, sft_records(1), TrainingConfig(batch_size=1))
    (mine,) = trainer.batches_of(trainer.training, share=(0, 2)).take()
    (other,) = trainer.batches_of(trainer.training, share=(1, 2)).take()
    assert terms_of(trainer, mine) > 0 and terms_of(trainer, to_device(other, torch.device("cpu"))) == 0
    assert torch.equal(mine["input_ids"], other["input_ids"])


def test_batches_that_leave_a_process_without_a_row_are_refused(tiny_model, tokenizer):
    trainer = SFTTrainer(tiny_model, tokenizer, sft_records(24), TrainingConfig(batch_size=8, accumulation=2))
    trainer.refuse_small_batches(processes=4)
    with pytest.raises(ValueError, match="batches of 8, too few for 2 micro-batches on each of 5 processes"):
        trainer.refuse_small_batches(processes=5)


@pytest.mark.parametrize(("rows", "parts"), [(7, [2, 2]), (3, [1, 1]), (1, [1, 1])])
def test_a_minibatch_of_a_rollout_is_shared_out(rows, parts):
    def collect(number, indices):
        ids = torch.arange(len(indices))
        return {"input_ids": ids[:, None], "attention_mask": torch.ones(len(ids), 1), "row": ids}

    options = {"prompts_per_rollout": rows, "rows_per_prompt": 1, "batch_size": rows, "update_epochs": 1, "seed": 0}
    taken = [RolloutBatches(rows, collect, **options, accumulation=2, share=(p, 2)).take() for p in (0, 1)]
    assert [len(micro_batches) for micro_batches in taken] == parts
    counted = [b["row"] for micro_batches in taken for b in micro_batches if not isinstance(b, StandIn)]
    assert sorted(torch.cat(counted).tolist()) == list(range(rows))


def test_what_is_drawn_for_a_prompt_does_not_depend_on_who_draws_it(tokenizer):
    model, asked = tiny_llama(len(tokenizer)), prompts("test", 4)
    whole = roll_out(model, tokenizer, asked, n=3, max_new_tokens=8, seed=5)
    share = roll_out(model, tokenizer, asked[2:], n=3, max_new_tokens=8, seed=5, first=2)
    assert share.texts == whole.texts[6:] and len(set(whole.texts)) > 6


def test_alone_a_process_does_everything_and_fails_as_it_would():
    assert my_part(5) == slice(0, 5) and joined(lambda: 3) == [3]
    with pytest.raises(RuntimeError, match="mine"):
        joined(lambda: (_ for _ in ()).throw(RuntimeError("mine")))


def test_a_run_that_was_started_with_fsdp_is_refused_with_what_to_take():
    with pytest.raises(ValueError, match="zero3.yaml"):
        is_sharded(SimpleNamespace(distributed_type=DistributedType.FSDP))


def test_a_shard_is_not_saved_as_if_it_were_a_model(tiny_model, tokenizer, tmp_path):
    weight = tiny_model.lm_head.weight
    weight.ds_numel, weight.data = weight.numel(), torch.empty(0)  # as ZeRO-3 leaves it between passes
    with pytest.raises(ValueError, match="on all processes"):
        save_pretrained(tiny_model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()
