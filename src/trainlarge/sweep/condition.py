"""Conditions over a configuration, as in ``arch.width == 64 and budget > "30 s"``: read, never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

from trainlarge.config.budget import Budget, parse_budget
from trainlarge.config.group import Plain
from trainlarge.errors import UserError

ALLOWED = "made of keys, values, == != < <= > >= in is, and, or, not, as in: arch.width == 64 and budget > '30 s'"

LONGEST = 10_000
"""Characters of a condition."""

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Plain] | Budget | None"
"""What a part of a condition stands for."""


def _is_in(left: object, right: object) -> bool:
    if not isinstance(right, Iterable):
        raise TypeError("in: nothing to look in")
    return any(left == item for item in right)


_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: _is_in,
    ast.NotIn: lambda left, right: not _is_in(left, right),
}

_EQUALITIES = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)


def holds(condition: str, config: Mapping[str, Plain], key: str = "where") -> bool:
    """Whether ``condition`` is true of a configuration as plain data.

    A budget compares as an amount: a bare number in its own base unit, a text with a unit after conversion. What is
    compared with text is text as it is written: an id such as 821e97645060 needs no quotes.

    Raises:
        UserError: for a condition that cannot be read, or a key that ``config`` does not have.
    """
    if len(condition) > LONGEST:
        raise UserError(key, condition, f"at most {LONGEST:,} characters: divide it into several conditions")
    try:
        return bool(_evaluate(_parse(condition), config))
    except UserError as error:
        raise UserError(key, condition, f"a valid condition: {error}") from None
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        # A deep condition takes Python's parser to the end of its stack, for which it has several words.
        raise UserError(key, condition, ALLOWED) from None


@lru_cache(maxsize=256)
def _parse(condition: str) -> ast.expr:
    text = condition.strip()
    tree = ast.parse(text, mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.kind = ast.get_source_segment(text, node)
    return tree


def _evaluate(node: ast.expr, config: Mapping[str, Plain]) -> Value:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_evaluate(value, config) for value in node.values)
        case ast.BoolOp():
            return any(_evaluate(value, config) for value in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _evaluate(node.operand, config)
        case ast.UnaryOp(op=ast.USub()):
            number = _evaluate(node.operand, config)
            if isinstance(number, (int, float)):
                return -number
        case ast.Compare():
            sides = pairwise([node.left, *node.comparators])
            return all(_is_true(op, *pair, config) for op, pair in zip(node.ops, sides, strict=True))
        case ast.Name() | ast.Attribute():
            return _value_at(ast.unparse(node), config)
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.List() | ast.Tuple():
            return [_evaluate(item, config) for item in node.elts]
    raise SyntaxError(type(node).__name__)


def _is_true(op: ast.cmpop, left: ast.expr, right: ast.expr, config: Mapping[str, Plain]) -> bool:
    values = [_evaluate(side, config) for side in (left, right)]
    if isinstance(op, _EQUALITIES) and any(isinstance(value, str) for value in values):
        values = [_evaluate(_as_text(side), config) for side in (left, right)]
    return _COMPARISONS[type(op)](*values)


def _as_text(node: ast.expr) -> ast.expr:
    """The side of a comparison with text, with its numbers and those of its lists as they are written."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return ast.Tuple([_as_text(item) for item in node.elts])
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return ast.Constant(node.kind)
    return node


def _value_at(path: str, config: Mapping[str, Plain]) -> Value:
    """What the configuration has at a dotted key; a budget as an amount."""
    value: Plain = dict(config)
    for part in path.split("."):
        if not isinstance(value, dict):
            raise UserError("key", path, "no such key: nothing is below a value")
        if part not in value:
            raise UserError("key", path, f"no such key: must be one of {', '.join(sorted(value))}")
        value = value[part]
    if path == "budget":
        return parse_budget(value)
    return value
