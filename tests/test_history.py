"""What a run leaves behind, as a table."""

from course_lib import History


def test_a_history_is_a_table_by_step():
    table = History([{"step": 1, "loss": 0.7}, {"step": 3, "loss": 0.5, "eval_loss": 0.6}]).to_pandas()
    assert list(table.index) == [1, 3] and list(table.loss) == [0.7, 0.5]
    assert list(table.eval_loss.isna()) == [True, False]


def test_a_run_that_did_nothing_has_an_empty_table():
    assert History().to_pandas().empty and not History().interrupted
