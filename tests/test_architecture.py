"""The house keeps its shape: who imports whom, no circles, a quick front door, short files, nothing untested."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "course_lib"
SIZES = {"sizing", "memory", "speed"}
ALLOWED = {  # each room, and the rooms that it may import, in the order of the flow
    "hub": set(),
    "world": set(),
    "data": {"hub", "world"},
    "logprobs": {"data"},
    "models": {"hub", "world", "data", "logprobs"},
    "losses": set(),
    "exact": {"losses"},
    "trainers": {"data", "logprobs", "models", "losses", "rollouts"},
    "rollouts": {"data", "logprobs", "models"},
    "rewards": {"data", "logprobs", "models"},
    "evaluation": {"world", "data", "logprobs", "models", "rollouts"},
    "sizing": set(),
    "memory": {"sizing", "logprobs"},
    "speed": {"sizing", "memory"},  # a step that does not fit has no speed, and weights are read byte by byte
    "claims": {"world", "evaluation", "losses", "exact", "trainers", "lessons"} | SIZES,
    "grading": {"lessons"},  # of the course's rooms it needs the list of lessons alone
    "machine": {"world", "models"},
    "lessons": {"losses", "trainers", "models"},
    "shipped_models": {"world", "models", "trainers"},
    "figures": {"world", "losses", "exact"} | SIZES,
    "widgets": {"figures", "rollouts", "world", "losses", "exact"} | SIZES,
    "recipes": {"hub", "world", "data", "models", "rollouts", "rewards", "trainers", "evaluation", "machine"} | SIZES,
    "cli": {"machine", "grading", "models", "trainers", "recipes"} | SIZES,
}


def test_every_room_says_what_it_may_import():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    assert rooms == set(ALLOWED)


def imported(source: str, module: str) -> set[str]:
    """Names of all course_lib modules that a module imports, whatever the form of the import."""
    package = module.split(".")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" for alias in node.names} | {start}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name for name in found if name.split(".")[0] == "course_lib"}


def rooms_of(modules: set[str]) -> set[str]:
    return {parts[1] for parts in (name.split(".") for name in modules) if len(parts) > 1 and parts[1] in ALLOWED}


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts not in (("course_lib", "__init__"), ("course_lib", "__main__")):
            yield path, ".".join(parts)


def test_each_room_imports_only_the_rooms_it_may():
    wrong = []
    for path, module in files():
        room = module.split(".")[1]
        for target in rooms_of(imported(path.read_text(), module)) - ALLOWED[room] - {room}:
            wrong.append(f"{module} imports {target}")
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "import course_lib.trainers",
        "import course_lib.trainers.loop as loop",
        "from course_lib import trainers",
        "from course_lib.trainers import History",
        "from .. import trainers",
        "from ..trainers import History",
        "from ..trainers.loop import fit",
        "def f():\n    from course_lib.trainers import History",
        "importlib.import_module('course_lib.trainers.loop')",
    ],
)
def test_the_fence_sees_every_form_of_import(line):
    assert "trainers" in rooms_of(imported(line, "course_lib.losses.preference"))


def test_what_is_allowed_has_no_circle():
    seen: set[str] = set()

    def visit(room: str, above: tuple[str, ...]):
        assert room not in above, f"{' -> '.join([*above, room])}"
        for other in ALLOWED[room]:
            visit(other, (*above, room))
        seen.add(room)

    for room in ALLOWED:
        visit(room, ())
    assert seen == set(ALLOWED)


LONG = {  # files over 300 lines, each with its reason
    "grading/worker.py": "a program that stands alone in the sandbox",
    "losses/policy_gradient.py": "one family of losses, two thirds of it docstrings",
    "memory/measured.py": "one training step of every method, which is read from top to bottom",
}


def test_files_are_short_or_have_a_reason():
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "bank"]  # a bank is data, lesson by lesson
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in modules}
    assert {name for name, length in lengths.items() if length > 300} == set(LONG)


def test_the_front_door_opens_without_torch():
    script = (
        "import sys, course_lib; from course_lib import estimate_memory; estimate_memory('llama-3-8b', 'dpo'); "
        "print([m for m in ('torch', 'transformers', 'peft', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_public_name_is_found_behind_the_front_door():
    import course_lib

    assert len(course_lib.__all__) > 35
    for name in course_lib.__all__:
        assert getattr(course_lib, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'dpoloss'"):
        _ = course_lib.dpoloss


TESTED_LATER = ("figures", "widgets")


def public_names(room: str):
    """Functions and classes that a room exports: those of its `__all__`, or all that its modules define."""
    module, folder = import_module(f"course_lib.{room}"), PACKAGE / room
    modules = [module]
    if folder.is_dir() and not hasattr(module, "__all__"):
        modules = [import_module(f"course_lib.{room}.{path.stem}") for path in folder.glob("[!_]*.py")]
    for module in modules:
        for name in getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"]):
            value = getattr(module, name)
            own = getattr(value, "__module__", "").startswith(f"course_lib.{room}")
            if own and (inspect.isroutine(value) or inspect.isclass(value)):
                yield name


def named_in_tests() -> set[str]:
    """Every name in the tests' code; their prose does not count."""
    found = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Name, ast.Attribute)):
                found.add(ast.unparse(node).split(".")[-1])
    return found


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - {"cli"} - set(TESTED_LATER)))  # cli's tests run commands
def test_all_that_a_room_exports_is_named_by_a_test(room):
    untested = sorted(set(public_names(room)) - named_in_tests())
    assert not untested, f"course_lib.{room}: {', '.join(untested)}"
