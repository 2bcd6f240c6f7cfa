"""What a lesson needs beside the package, and how it stops where that is missing: one sentence, and no traceback."""

from __future__ import annotations


class NotHere(Exception):
    """Something that must be fetched first; Jupyter shows the message alone, and runs no cell after it."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def has_smollm2() -> bool:
    from course_lib.models import smollm2_folder  # here, so that the rest of the course need not wait for it

    return (smollm2_folder() / "config.json").is_file()


def need_smollm2() -> None:
    """Stop here unless the model is there.

    Raises:
        NotHere: it is not; the message says how to get it.
    """
    if not has_smollm2():
        raise NotHere(
            "This lesson works with a real language model, which is not here yet: run `course fetch smollm2` once in a "
            "terminal (98 MB), then start again. No other lesson needs it."
        )
