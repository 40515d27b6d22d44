"""From the tree of an expression to a function that evaluates it. Pure.

Jinja2 parses; nothing of what it compiles or runs is used. A template can do what stands in the
tables here and nothing else: there are no attributes of Python objects, no methods and no calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from jinja2 import nodes

from plugins.personalization.filters import FILTERS, RAW_FILTERS, RAW_TESTS, TESTS
from plugins.personalization.localization import parse_number
from plugins.personalization.operators import ARITHMETIC, COMPARISONS, negate, number
from plugins.personalization.rendering import Loop, Missing, Rendering, Safe, TemplateError

Evaluate = Callable[[Rendering], Any]

_LONGEST_RANGE = 10_000
_MAPPING_METHODS = ("items", "keys", "values")
_BINARY = (nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow)


def located(evaluate: Evaluate, offset: int) -> Evaluate:
    """The same function, whose errors name their place."""

    def run(rendering: Rendering) -> Any:
        try:
            return evaluate(rendering)
        except TemplateError as error:
            if error.offset >= 0:
                raise
            raise TemplateError(str(error), offset) from None
        except TypeError:
            raise TemplateError("wrong arguments", offset) from None
        except ArithmeticError:
            raise TemplateError("this cannot be calculated", offset) from None
        except RecursionError:
            raise TemplateError("this is nested too deeply", offset) from None
        except ValueError as error:
            raise TemplateError(str(error), offset) from None

    return run


class Expressions:
    """Compiles expressions.

    Args:
        allow_html: whether the filter `safe` may be used.
    """

    def __init__(self, allow_html: bool) -> None:
        self._allow_html = allow_html

    def compile(self, node: nodes.Node) -> Evaluate:
        """The function that evaluates an expression.

        Raises:
            TemplateError: it has something in it that templates cannot have.
        """
        method = _METHODS.get(type(node))
        if method is None:
            raise TemplateError("this cannot be used in a template", node.lineno)
        return method(self, node)

    # Values.

    def _constant(self, node: nodes.Const) -> Evaluate:
        value = node.value
        if isinstance(value, float):
            value = parse_number(value)
            if value is None:
                raise TemplateError("a number has too many digits", node.lineno)
        return lambda rendering: value

    def _name(self, node: nodes.Name) -> Evaluate:
        name, missing = node.name, Missing((node.name,), node.lineno)

        def load(rendering: Rendering) -> Any:
            for layer in rendering.layers:
                if name in layer:
                    value = layer[name]
                    return missing if value is None else value
            return missing

        return load

    def _attribute(self, node: nodes.Getattr) -> Evaluate:
        load, name = self.compile(node.node), node.attr
        missing = Missing(_path(node), _start(node))

        def get(rendering: Rendering) -> Any:
            value = load(rendering)
            if isinstance(value, dict | Loop):
                value = value.get(name)
                return missing if value is None else value
            return missing

        return get

    def _item(self, node: nodes.Getitem) -> Evaluate:
        load = self.compile(node.node)
        if isinstance(node.arg, nodes.Slice):
            return self._slice(load, node.arg, node.lineno)
        key, missing = self.compile(node.arg), Missing(_path(node), _start(node))

        def get(rendering: Rendering) -> Any:
            whole, wanted = load(rendering), rendering.need(key(rendering))
            value = None
            if isinstance(whole, dict):
                value = whole.get(rendering.text(wanted))
            elif isinstance(whole, list | str):
                place = number(wanted)
                if isinstance(place, int) and -len(whole) <= place < len(whole):
                    value = whole[place]
            return missing if value is None else value

        return located(get, node.lineno)

    def _slice(self, load: Evaluate, node: nodes.Slice, offset: int) -> Evaluate:
        bounds = [
            None if bound is None else self.compile(bound)
            for bound in (node.start, node.stop, node.step)
        ]

        def get(rendering: Rendering) -> Any:
            whole = rendering.need(load(rendering))
            if isinstance(whole, str):
                rendering.spend(len(whole) >> 6)
            else:
                whole = rendering.items(whole)
                rendering.spend(len(whole))
            places = [None if one is None else int(number(one(rendering))) for one in bounds]
            return whole[slice(*places)]

        return located(get, offset)

    def _list(self, node: nodes.List | nodes.Tuple) -> Evaluate:
        parts = [self.compile(part) for part in node.items]

        def make(rendering: Rendering) -> list[Any]:
            items = [rendering.need(part(rendering)) for part in parts]
            # Lists of lists of lists would grow beyond all bounds.
            if any(isinstance(item, list | dict) for item in items):
                raise ValueError("a list that is written in a template holds texts and numbers")
            rendering.spend(len(items))
            return items

        return located(make, node.lineno)

    # Operators.

    def _and(self, node: nodes.And) -> Evaluate:
        left, right = self.compile(node.left), self.compile(node.right)
        return lambda rendering: left(rendering) and right(rendering)

    def _or(self, node: nodes.Or) -> Evaluate:
        left, right = self.compile(node.left), self.compile(node.right)
        return lambda rendering: left(rendering) or right(rendering)

    def _not(self, node: nodes.Not) -> Evaluate:
        value = self.compile(node.node)
        return lambda rendering: not value(rendering)

    def _choice(self, node: nodes.CondExpr) -> Evaluate:
        test, chosen = self.compile(node.test), self.compile(node.expr1)
        other = self.compile(node.expr2) if node.expr2 is not None else lambda rendering: ""
        return lambda rendering: chosen(rendering) if test(rendering) else other(rendering)

    def _compare(self, node: nodes.Compare) -> Evaluate:
        first = self.compile(node.expr)
        rest = [(COMPARISONS[operand.op], self.compile(operand.expr)) for operand in node.ops]

        def compare(rendering: Rendering) -> bool:
            left = first(rendering)
            for holds, operand in rest:
                right = operand(rendering)
                if not holds(rendering, left, right):
                    return False
                left = right
            return True

        return located(compare, node.expr.lineno)

    def _arithmetic(self, node: nodes.BinExpr) -> Evaluate:
        operator = ARITHMETIC.get(node.operator)
        if operator is None:
            raise TemplateError(f"there is no operator {node.operator}", node.lineno)
        left, right = self.compile(node.left), self.compile(node.right)
        return located(
            lambda rendering: operator(rendering, left(rendering), right(rendering)), node.lineno
        )

    def _sign(self, node: nodes.UnaryExpr) -> Evaluate:
        value = self.compile(node.node)
        if isinstance(node, nodes.Neg):
            return located(lambda rendering: negate(rendering, value(rendering)), node.lineno)
        return located(lambda rendering: number(rendering.need(value(rendering))), node.lineno)

    def _concatenation(self, node: nodes.Concat) -> Evaluate:
        parts = [self.compile(part) for part in node.nodes]

        def join(rendering: Rendering) -> str:
            texts = [rendering.text(part(rendering)) for part in parts]
            rendering.check_length(sum(map(len, texts)))
            return "".join(texts)

        return located(join, node.lineno)

    # Filters, tests, and what looks like a call.

    def _filter(self, node: nodes.Filter) -> Evaluate:
        if node.name == "safe":
            return self._safe(node)
        apply = RAW_FILTERS.get(node.name) or FILTERS.get(node.name)
        if apply is None:
            raise _unknown("filter", node.name, [*FILTERS, *RAW_FILTERS], node.lineno)
        run = self._applied(apply, node, raw=node.name in RAW_FILTERS)
        missing = Missing((node.name,), node.lineno)

        def filtered(rendering: Rendering) -> Any:
            result = run(rendering)
            return missing if result is None else result

        return located(filtered, node.lineno)

    def _safe(self, node: nodes.Filter) -> Evaluate:
        if not self._allow_html:
            text = "the filter safe is not allowed; it would be with allow_html: true"
            raise TemplateError(text, node.lineno)
        return located(
            self._applied(lambda rendering, value: Safe(rendering.text(value)), node), node.lineno
        )

    def _test(self, node: nodes.Test) -> Evaluate:
        test = RAW_TESTS.get(node.name) or TESTS.get(node.name)
        if test is None:
            raise _unknown("test", node.name, [*TESTS, *RAW_TESTS], node.lineno)
        return located(self._applied(test, node, raw=node.name in RAW_TESTS), node.lineno)

    def _applied(
        self, apply: Callable[..., Any], node: nodes.Filter | nodes.Test, raw: bool = False
    ) -> Evaluate:
        """A filter or test with its value and arguments, which may be missing if it is `raw`."""
        if node.node is None:
            raise TemplateError("a filter needs a value", node.lineno)
        value, (arguments, named) = self.compile(node.node), self._arguments(node)

        def known(rendering: Rendering, one: Evaluate) -> Any:
            found = one(rendering)
            return found if raw else rendering.need(found)

        def run(rendering: Rendering) -> Any:
            subject = known(rendering, value)
            if isinstance(subject, str):
                rendering.spend(len(subject) >> 6)
            return apply(
                rendering,
                subject,
                *[known(rendering, argument) for argument in arguments],
                **{name: known(rendering, argument) for name, argument in named},
            )

        return run

    def _arguments(
        self, node: nodes.Filter | nodes.Test | nodes.Call
    ) -> tuple[list[Evaluate], list[tuple[str, Evaluate]]]:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateError("arguments cannot be unpacked with *", node.lineno)
        named = [(str(pair.key), self.compile(pair.value)) for pair in node.kwargs]
        return [self.compile(argument) for argument in node.args], named

    def _call(self, node: nodes.Call) -> Evaluate:
        called = node.node
        arguments, named = self._arguments(node)
        if not named and isinstance(called, nodes.Name) and called.name == "range":
            return located(lambda rendering: _range(rendering, arguments), node.lineno)
        if not named and isinstance(called, nodes.Getattr):
            value = self.compile(called.node)
            if called.attr in _MAPPING_METHODS and not arguments:
                method = FILTERS[called.attr]
                return located(
                    lambda rendering: method(rendering, rendering.need(value(rendering))),
                    node.lineno,
                )
            if _path(called) == ("loop", "cycle") and arguments:
                return located(lambda rendering: _cycle(rendering, value, arguments), node.lineno)
        text = f"{'.'.join(_path(called))} cannot be called; templates have filters instead, such "
        raise TemplateError(text + "as {{ name | upper }}", _start(called))


def _range(rendering: Rendering, arguments: list[Evaluate]) -> list[int]:
    numbers = range(*[int(number(rendering.need(one(rendering)))) for one in arguments])
    if len(numbers) > _LONGEST_RANGE:
        raise ValueError(f"a range has at most {_LONGEST_RANGE} numbers")
    rendering.spend(len(numbers))
    return list(numbers)


def _cycle(rendering: Rendering, value: Evaluate, arguments: list[Evaluate]) -> Any:
    loop = value(rendering)
    if not isinstance(loop, Loop):
        raise ValueError("there is no loop around this")
    return arguments[loop.index0 % len(arguments)](rendering)


def _path(node: nodes.Node) -> tuple[str, ...]:
    """The name of a value as the template writes it."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        return (*_path(node.node), node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return (*_path(node.node), str(node.arg.value)[:40])
    return ("…",)


def _start(node: nodes.Node) -> int:
    """Where a name such as `customer.name` begins; its own place is that of its last point."""
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return node.lineno


def _unknown(kind: str, name: str, known: list[str], offset: int) -> TemplateError:
    near = get_close_matches(name, known, 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return TemplateError(f'there is no {kind} "{name[:40]}"{hint}', offset)


_METHODS: Mapping[type[nodes.Node], Callable[[Expressions, Any], Evaluate]] = MappingProxyType(
    {
        nodes.Const: Expressions._constant,
        nodes.Name: Expressions._name,
        nodes.Getattr: Expressions._attribute,
        nodes.Getitem: Expressions._item,
        nodes.List: Expressions._list,
        nodes.Tuple: Expressions._list,
        nodes.And: Expressions._and,
        nodes.Or: Expressions._or,
        nodes.Not: Expressions._not,
        nodes.CondExpr: Expressions._choice,
        nodes.Compare: Expressions._compare,
        nodes.Concat: Expressions._concatenation,
        **dict.fromkeys(_BINARY, Expressions._arithmetic),
        nodes.Neg: Expressions._sign,
        nodes.Pos: Expressions._sign,
        nodes.Filter: Expressions._filter,
        nodes.Test: Expressions._test,
        nodes.Call: Expressions._call,
    }
)
