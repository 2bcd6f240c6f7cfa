"""Published data sets of one question and its answers, whose columns have other names than ours."""

from __future__ import annotations

QUESTIONS = ("question", "instruction", "history")  # orca_dpo_pairs and gsm8k; Alpaca and Dolly; SHP
MATERIAL = ("input", "context")  # what an instruction is about: Alpaca; Dolly
SYSTEMS = ("system", "system_prompt")
ANSWERS = ("output", "answer", "response")
CHOICES = (  # two answers, the column that names the better one, and what it holds for the first
    ("response_0", "response_1", "better_response_id", 0),  # PKU-SafeRLHF
    ("human_ref_A", "human_ref_B", "labels", 1),  # SHP
)


def as_chat(row: dict) -> dict:
    """The row with its question as `prompt` and its answers as `chosen` and `rejected` or as `completion`, in messages.

    Rows that have a prompt or a dialogue already stay as they are.
    """
    choice = _chosen(row)
    if "messages" in row or ("prompt" in row and not choice):
        return row
    question = row["prompt"] if "prompt" in row else _first(row, QUESTIONS)
    answers = choice or _answers(row)
    if not all(isinstance(words, str) for words in (question, *answers.values())):
        return row
    if "instruction" in row and (material := _words(row, MATERIAL)):
        question = f"{question}\n\n{material}"
    system = _words(row, SYSTEMS)
    before = [{"role": "system", "content": system}] if system else []
    said = {name: [{"role": "assistant", "content": words}] for name, words in answers.items()}
    return row | {"prompt": [*before, {"role": "user", "content": question}]} | said


def _chosen(row: dict) -> dict:
    """The two answers of a row that says in a column of its own which is better; empty for others."""
    for first, second, column, of_first in CHOICES:
        if {first, second, column} <= row.keys() and row[column] in (0, 1):
            sides = ("chosen", "rejected") if row[column] == of_first else ("rejected", "chosen")
            return dict(zip(sides, (row[first], row[second]), strict=True))
    return {}


def _answers(row: dict) -> dict:
    found = {name: row[name] for name in ("chosen", "rejected", "completion") if name in row}
    answer = _first(row, ANSWERS)
    return found or ({} if answer is None else {"completion": answer})


def _first(row: dict, names: tuple[str, ...]):
    """The value of the first of these columns that the row has."""
    return next((row[name] for name in names if name in row), None)


def _words(row: dict, names: tuple[str, ...]) -> str:
    """The text of the first of these columns; empty where it holds none."""
    value = _first(row, names)
    return value if isinstance(value, str) and value.strip() else ""
