"""Which lessons pytest runs: those that need a fetched model only where it is."""

from course_lib.lessons.curriculum import OPTIONAL
from course_lib.lessons.needs import has_smollm2

collect_ignore_glob = [] if has_smollm2() else [f"{lesson}_*.ipynb" for lesson in OPTIONAL]
