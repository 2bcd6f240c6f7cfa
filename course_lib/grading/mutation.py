"""Mutants made by machine: the reference with one small fault each, which the properties must notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator

SWAPS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.FloorDiv: [ast.Div],
    ast.Pow: [ast.Mult], ast.Mod: [ast.Mult], ast.MatMult: [ast.Mult], ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd], ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In],
}  # fmt: skip
NAMES = {
    "mean": "sum", "sum": "mean", "min": "max", "max": "min", "logsigmoid": "sigmoid", "exp": "expm1", "any": "all",
    "all": "any", "cumsum": "cumprod", "argmax": "argmin", "argmin": "argmax", "minimum": "maximum",
    "maximum": "minimum",
}  # fmt: skip
MODULES = ("torch", "np", "math", "F")
DROPPED = {"detach", "clamp", "abs", "square", "sqrt", "exp", "log", "flip", "masked_fill", "squeeze"}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(description, source) of each; a description names its place by what stands there, so that it survives edits."""
    tree = ast.parse(source)
    function = tree.body[0]
    if ast.get_docstring(function):
        function.body.pop(0)
    seen = {ast.unparse(tree)}
    count: dict[str, int] = {}
    signature = set(ast.walk(function.args))  # defaults are not part of the idea
    for parent in (node for node in ast.walk(function) if node not in signature):
        for field, place, child in _children(parent):
            for new in _changed(child):
                before = ast.unparse(parent).split("\n")[0]
                _put(parent, field, place, new)
                mutated, after = ast.unparse(tree), ast.unparse(parent).split("\n")[0]
                _put(parent, field, place, child)
                if mutated not in seen:
                    seen.add(mutated)
                    said = f"`{before}` -> `{after}`" if before != after else f"in `{before}`"
                    count[said] = count.get(said, 0) + 1
                    yield said + (f" ({count[said]})" if count[said] > 1 else ""), mutated


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield field, None, value
        elif isinstance(value, list):
            for place, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield field, place, item


def _put(parent: ast.AST, field: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[place] = node


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in this one's place."""
    for new in SWAPS.get(type(node), ()):
        yield new()
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        yield node.left
        if isinstance(node.op, (ast.Add, ast.Mult)):
            yield node.right
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        if isinstance(node.operand, ast.Constant):  # an axis, an index: the constant itself is changed
            return
        yield node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        large = abs(node.value) >= 1000  # a unit, where one more or less is within rounding
        yield ast.Constant(2 * node.value if large else node.value + 1)
        if node.value not in (0, 1):
            yield ast.Constant(node.value / 2 if large else node.value - 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    if isinstance(node, ast.Slice) and node.lower and node.upper is None and node.step is None:
        yield ast.Slice(None, None, None)
    if isinstance(node, ast.Slice) and node.upper and node.lower is None and node.step is None:
        yield ast.Slice(None, None, None)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    if isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield ast.Name(NAMES[node.id], node.ctx)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED:
        method_of = node.func.value
        if not (isinstance(method_of, ast.Name) and method_of.id in MODULES):
            yield method_of
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
