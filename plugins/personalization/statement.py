"""From the tree of a template's statements to functions that run them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import nodes

from plugins.personalization.expression import Evaluate, Expressions, located
from plugins.personalization.rendering import Loop, Rendering, TemplateError

Bind = Callable[[dict[str, Any], Any], None]

_REFUSED: Mapping[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.AssignBlock: "set without =",
    nodes.With: "with",
    nodes.Scope: "autoescape",
}


class Statements:
    """Compiles statements.

    Args:
        allow_html: whether the filter `safe` may be used.
        literal: the text that a piece of literal text stands for.
    """

    def __init__(self, allow_html: bool, literal: Callable[[nodes.TemplateData], str]) -> None:
        self._expressions = Expressions(allow_html)
        self._literal = literal

    def compile(self, node: nodes.Node) -> Evaluate:
        """The function that runs a statement, or writes an expression.

        Raises:
            TemplateError: it has something in it that templates cannot have.
        """
        method = _METHODS.get(type(node))
        if method is not None:
            return method(self, node)
        if isinstance(node, nodes.Expr):
            return self._value(node)
        name = _REFUSED.get(type(node), type(node).__name__.lower())
        raise TemplateError(f'the tag "{name}" cannot be used in mail', node.lineno)

    def _block(self, body: Sequence[nodes.Node]) -> Evaluate:
        statements = [self.compile(node) for node in body]

        def run(rendering: Rendering) -> None:
            for statement in statements:
                statement(rendering)

        return statements[0] if len(statements) == 1 else run

    def _value(self, node: nodes.Expr) -> Evaluate:
        value = self._expressions.compile(node)
        return located(lambda rendering: rendering.write(value(rendering)), node.lineno)

    def _text(self, node: nodes.TemplateData) -> Evaluate:
        text = self._literal(node)
        return located(lambda rendering: rendering.write_literal(text), node.lineno)

    def _output(self, node: nodes.Output) -> Evaluate:
        return self._block(node.nodes)

    def _if(self, node: nodes.If) -> Evaluate:
        branches = [
            (self._expressions.compile(branch.test), self._block(branch.body))
            for branch in (node, *node.elif_)
        ]
        otherwise = self._block(node.else_)

        def run(rendering: Rendering) -> None:
            for test, body in branches:
                if test(rendering):
                    body(rendering)
                    return
            otherwise(rendering)

        return run

    def _set(self, node: nodes.Assign) -> Evaluate:
        bind, value = self._target(node.target), self._expressions.compile(node.node)
        return located(
            lambda rendering: bind(rendering.layers[0], rendering.need(value(rendering))),
            node.lineno,
        )

    def _target(self, node: nodes.Node) -> Bind:
        """The function that gives a value to a name, or several values to several names."""
        if isinstance(node, nodes.Name):
            name = node.name

            def bind(layer: dict[str, Any], value: Any) -> None:
                layer[name] = value

            return bind
        if not isinstance(node, nodes.Tuple):
            raise TemplateError("a value can only be given to a name", node.lineno)
        targets = [self._target(item) for item in node.items]

        def unpack(layer: dict[str, Any], value: Any) -> None:
            if not isinstance(value, list) or len(value) != len(targets):
                raise ValueError(f"{len(targets)} names need a list of {len(targets)} values")
            for target, item in zip(targets, value, strict=True):
                target(layer, item)

        return unpack

    def _for(self, node: nodes.For) -> Evaluate:
        if node.recursive:
            raise TemplateError("a loop cannot be recursive", node.lineno)
        items, bind = self._expressions.compile(node.iter), self._target(node.target)
        test = None if node.test is None else self._expressions.compile(node.test)
        body, otherwise = self._block(node.body), self._block(node.else_)
        cost = 1 + sum(1 for inner in node.body for _ in inner.find_all(nodes.Node))

        def passes(rendering: Rendering, condition: Evaluate, item: Any) -> bool:
            layer: dict[str, Any] = {}
            bind(layer, item)
            rendering.layers = (layer, *rendering.layers)
            rendering.spend(cost)
            try:
                return bool(condition(rendering))
            finally:
                rendering.layers = rendering.layers[1:]

        def run(rendering: Rendering) -> None:
            chosen = rendering.items(items(rendering))
            if test is not None:
                chosen = [item for item in chosen if passes(rendering, test, item)]
            if not chosen:
                otherwise(rendering)
                return
            outer, loop = rendering.layers, Loop(chosen)
            try:
                for index, item in enumerate(chosen):
                    rendering.spend(cost)
                    loop.index0 = index
                    layer = {"loop": loop}
                    bind(layer, item)
                    rendering.layers = (layer, *outer)
                    body(rendering)
            finally:
                rendering.layers = outer

        return located(run, node.lineno)


_METHODS: Mapping[type[nodes.Node], Callable[[Statements, Any], Evaluate]] = MappingProxyType(
    {
        nodes.Output: Statements._output,
        nodes.TemplateData: Statements._text,
        nodes.If: Statements._if,
        nodes.For: Statements._for,
        nodes.Assign: Statements._set,
    }
)
