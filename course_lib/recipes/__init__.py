"""Runs as YAML files: what is trained, on what, how, and where; `course train` runs them.

`files` finds them, `settings` says what a recipe may say, `reading` reads one with its changes, `methods` knows what
each method takes, `building` makes model, records and trainer of it, `planning` says what it will need, `launching`
starts several processes, and `running` runs it and leaves a `folder`, with what is `writing` as it goes, `evaluating`,
and a `card`. The files themselves lie beside, one folder a tier; `strategies` holds Accelerate's. Imports whatever
trains; the command line imports it.
"""

from importlib import import_module

_HOMES = {
    "files": ("RecipeError", "abouts", "recipe_names", "refuse_unreachable_model"),
    "launching": ("is_main_process", "launch", "launch_command", "needs_launch", "quieten"),
    "planning": ("Plan", "plan"),
    "reading": ("read_recipe",),
    "running": ("run_recipe",),
    "settings": ("Recipe",),
    "showing": ("explained", "told"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    """Import a name's home when it is first used: a mistake in a file is told without waiting for torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'course_lib.recipes' has no attribute {name!r}")
    return getattr(import_module(f"course_lib.recipes.{_HOME_OF[name]}"), name)
