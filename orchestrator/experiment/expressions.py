"""Conditions written by users, such as `batch_size * optimizer.learning_rate < 64`: parsed, never run.

Only names with dots, numbers, texts, comparisons, arithmetic without powers, `and`, `or`, `not` and
`in` are understood.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, choices: value in choices,
    ast.NotIn: lambda value, choices: value not in choices,
}
_LONGEST = 500


class Expression:
    """A parsed condition."""

    def __init__(self, text: str) -> None:
        """Parse.

        Raises:
            ValueError: says what is not understood.
        """
        self.text = text
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"an expression has at most {_LONGEST} characters")
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, RecursionError, MemoryError):
            raise ValueError(
                f"{text!r} is not an expression; write one such as batch_size * 2 <= 512"
            ) from None
        self.names: set[str] = set()
        """The dotted names that it mentions."""
        self._check(self._tree)

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name | ast.Attribute):
            self.names.add(_dotted(node, self.text))
            return
        if isinstance(node, ast.Constant):
            understood = isinstance(node.value, bool | int | float | str | None)
        elif isinstance(node, ast.UnaryOp | ast.BinOp):
            understood = type(node.op) in _OPERATORS
        elif isinstance(node, ast.Compare):
            understood = all(type(operation) in _OPERATORS for operation in node.ops)
        else:
            understood = isinstance(node, ast.BoolOp | ast.Tuple | ast.List)
        if not understood:
            raise ValueError(
                f"{self.text!r}: {ast.unparse(node)!r} is not allowed; use names, numbers, texts, "
                "comparisons, + - * / // %, and, or, not, in"
            )
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._check(child)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The expression's value; a name without a value, or values that do not mix, make it False."""
        try:
            return self.value(values)
        except (TypeError, KeyError, ArithmeticError):
            return False

    def value(self, values: Mapping[str, Any]) -> Any:
        """The expression's value.

        Raises:
            KeyError: a name has no value.
            TypeError: values do not mix.
            ArithmeticError: such as a division by zero.
        """
        return self._value(self._tree, values)

    @property
    def is_condition(self) -> bool:
        """Whether its value is true or false by its form: a comparison, or `and`, `or`, `not` of such."""
        return _is_condition(self._tree)

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                return values[_dotted(node, self.text)]
            case ast.Tuple() | ast.List():
                return [self._value(item, values) for item in node.elts]
            case ast.UnaryOp():
                return _OPERATORS[type(node.op)](self._value(node.operand, values))
            case ast.BinOp():
                return _OPERATORS[type(node.op)](
                    self._value(node.left, values), self._value(node.right, values)
                )
            case ast.BoolOp(op=ast.And()):
                return all(self._value(item, values) for item in node.values)
            case ast.BoolOp():
                return any(self._value(item, values) for item in node.values)
            case ast.Compare():
                sides = [self._value(item, values) for item in (node.left, *node.comparators)]
                pairs = zip(sides, node.ops, sides[1:], strict=False)
                return all(_OPERATORS[type(operation)](left, right) for left, operation, right in pairs)
        raise TypeError(node)


def _dotted(node: ast.AST, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise ValueError(f"{text!r}: {ast.unparse(node)!r} is not a name")


def _is_condition(node: ast.expr) -> bool:
    match node:
        case ast.Compare():
            return True
        case ast.BoolOp():
            return all(_is_condition(item) for item in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return _is_condition(node.operand)
    return False
