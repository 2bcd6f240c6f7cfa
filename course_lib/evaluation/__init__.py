"""Metrics of a trained model: gold reward, probes, spread. Near the end of the flow; imports what lies left of it."""

from course_lib.evaluation.intervals import mean_and_spread, paired_interval
from course_lib.evaluation.probes import PROBES, cloze_accuracy, probe_table
from course_lib.evaluation.reports import by_kind, evaluate_gold, gold_report, implicit_reward_report, mean_parts
from course_lib.evaluation.rewards import calibration, calibration_error, reward_report

__all__ = [
    "PROBES",
    "by_kind",
    "calibration",
    "calibration_error",
    "cloze_accuracy",
    "evaluate_gold",
    "gold_report",
    "implicit_reward_report",
    "mean_and_spread",
    "mean_parts",
    "paired_interval",
    "probe_table",
    "reward_report",
]
