"""Metrics of a trained model: gold reward, probes, intervals. Near the end of the flow; imports everything left of it."""

from course_lib.evaluation.intervals import mean_and_spread
from course_lib.evaluation.probes import cloze_accuracy
from course_lib.evaluation.reports import evaluate_gold, gold_report, implicit_reward_report

__all__ = ["cloze_accuracy", "evaluate_gold", "gold_report", "implicit_reward_report", "mean_and_spread"]
