"""The claims ledger's rows: one file a lesson or two, each with its `CLAIMS` of (claim, how it is measured, lesson).

A measurement is a function without arguments that gives the verdict and the figure behind it.
"""

from claims import direct, exact_corner, failures, family, memory, speed

ORDER = "PMSORND"  # pipelines, memory, speed, optimisation, outcomes, reward hacking, choosing
LESSONS = (direct, exact_corner, failures, family, memory, speed)
CLAIMS = sorted(
    [row for lesson in LESSONS for row in lesson.CLAIMS],
    key=lambda row: (ORDER.index(row[0][0]), int(row[0][1:].split(":")[0].split(",")[0])),
)
