"""Conditions over a configuration, as in ``arch.width == 64 and budget > "30 s"``: read, never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from trainlarge.config.budget import parse_budget
from trainlarge.errors import UserError

ALLOWED = "made of keys, values, == != < <= > >= in is, and, or, not, as in: arch.width == 64 and budget > '30 s'"

_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: any(left == item for item in right),
    ast.NotIn: lambda left, right: all(left != item for item in right),
}

_EQUALITIES = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)


def holds(condition: str, config: dict[str, Any], key: str = "where") -> bool:
    """Whether ``condition`` is true of the nested dictionary ``config``.

    A budget compares as an amount: a bare number in its own base unit, a text with a unit after conversion. What is
    compared with text is text as it is written: an id such as 821e97645060 needs no quotes.

    Raises:
        UserError: for a condition that cannot be read, or a key that ``config`` does not have.
    """
    try:
        return bool(_evaluate(_parse(condition), config))
    except UserError as error:
        raise UserError(key, condition, f"a valid condition: {error}") from None
    except (SyntaxError, TypeError):
        raise UserError(key, condition, ALLOWED) from None


@lru_cache(maxsize=256)
def _parse(condition: str) -> ast.expr:
    text = condition.strip()
    tree = ast.parse(text, mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.kind = ast.get_source_segment(text, node)
    return tree


def _evaluate(node: ast.expr, config: dict[str, Any]) -> Any:
    reader = _READERS.get(type(node))
    if reader is None:
        raise SyntaxError(type(node).__name__)
    return reader(node, config)


def _boolean(node: ast.BoolOp, config: dict[str, Any]) -> bool:
    gather = all if isinstance(node.op, ast.And) else any
    return gather(_evaluate(value, config) for value in node.values)


def _unary(node: ast.UnaryOp, config: dict[str, Any]) -> Any:
    value = _evaluate(node.operand, config)
    if isinstance(node.op, ast.Not):
        return not value
    if isinstance(node.op, ast.USub):
        return -value
    raise SyntaxError("operator")


def _compare(node: ast.Compare, config: dict[str, Any]) -> bool:
    sides = [node.left, *node.comparators]
    return all(_holds(op, *pair, config) for op, pair in zip(node.ops, pairwise(sides), strict=True))


def _holds(op: ast.cmpop, left: ast.expr, right: ast.expr, config: dict[str, Any]) -> bool:
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


def _key(node: ast.expr, config: dict[str, Any]) -> Any:
    path = ast.unparse(node)
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(
                "key",
                path,
                f"no such key: must be one of {', '.join(sorted(value))}"
                if isinstance(value, dict)
                else "no such key: nothing is below a value",
            )
        value = value[part]
    return parse_budget(value) if path == "budget" else value


_READERS: dict[type, Callable[[Any, dict[str, Any]], Any]] = {
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.Name: _key,
    ast.Attribute: _key,
    ast.Constant: lambda node, _config: node.value,
    ast.List: lambda node, config: [_evaluate(item, config) for item in node.elts],
    ast.Tuple: lambda node, config: [_evaluate(item, config) for item in node.elts],
}
