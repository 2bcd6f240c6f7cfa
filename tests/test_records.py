"""From rows to token ids: problems by row, lengths held, pairs measured and batches cut."""

import pytest

from course_lib import RecordError, world
from course_lib.data import (
    Encoded,
    collate_shared,
    encode_completion,
    encode_records,
    even_parts,
    find_problems,
    fit_rows,
    shared_length,
    turn_end,
)

GOOD = {"prompt": "a ", "chosen": "b", "rejected": "c"}


def test_every_problem_is_found_with_its_row():
    problems = find_problems([GOOD, GOOD | {"chosen": "c"}, {"prompt": "a "}], "preference")
    assert {problem.row for problem in problems} == {1, 2} and all(p.what and p.remedy for p in problems)
    assert find_problems([GOOD], "preference") == []


def test_a_pair_is_encoded_as_each_side_alone(letters):
    sides = tuple(encode_completion("a ", side, letters) for side in ("b", "c"))
    assert encode_records([GOOD], "preference", tokenizer=letters) == [sides]
    with pytest.raises(RecordError, match="row 1"):
        encode_records([GOOD, {"prompt": "a "}], "preference", tokenizer=letters)


def test_rows_are_held_to_a_length_in_the_way_that_was_asked_for():
    short, long = Encoded([1], [2]), Encoded([1], [2, 3, 4])
    assert fit_rows([short, long], 2, over_long="drop") == ([short], [0])
    rows, kept = fit_rows([short, long], 3, over_long="truncate")
    assert kept == [0, 1] and rows[0] == short and rows[1].completion_ids == [2, 3]
    with pytest.raises(RecordError, match="row 1"):
        fit_rows([short, long], 3)


def test_a_pair_that_a_cut_would_make_equal_is_left_out():
    pair, other = (Encoded([1], [2, 3]), Encoded([1], [2, 4])), (Encoded([1], [2]), Encoded([1], [3]))
    assert fit_rows([pair, other], 2, over_long="truncate") == ([other], [1])


@pytest.mark.parametrize("sides", [([5, 6, 7], [5, 6, 8]), ([5], [6]), ([5, 6], [7, 8, 9]), ([5, 6], [5, 6, 7])])
def test_a_shared_pair_is_as_long_as_its_row_in_the_batch(sides):
    pair = tuple(Encoded([3, 4], side) for side in sides)
    assert shared_length(pair) == collate_shared([pair], 0)["input_ids"].shape[1]


@pytest.mark.parametrize(("size", "parts"), [(10, 3), (7, 7), (8, 1), (5, 2)])
def test_parts_are_even_and_lose_nothing(size, parts):
    cut = even_parts(range(size), parts)
    assert sum(cut, []) == list(range(size)) and len(cut) == parts
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_a_turn_ends_as_the_template_says(tokenizer, letters):
    end = turn_end(tokenizer)
    text = tokenizer.apply_chat_template([*world.user("hello"), *world.assistant("hello")], tokenize=False)
    assert text.endswith("hello" + end.tail) and end.token_id == tokenizer.convert_tokens_to_ids(end.token)
    assert turn_end(letters).token_id is None
