"""What filters do with lists and mappings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cmp_to_key
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from plugins.personalization.localization import parse_number
from plugins.personalization.operators import ARITHMETIC, Number, number, order, whole
from plugins.personalization.rendering import Missing, Rendering


def items_of(rendering: Rendering, value: Any) -> list[Any]:
    """The items of a list, or the keys of a mapping, with the work of going through them."""
    items = rendering.items(value)
    rendering.spend(len(items))
    return items


def attribute_of(item: Any, path: Any) -> Any:
    """What a name such as `price` or `product.name` leads to from an item."""
    value = item
    for name in str(path).split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return Missing((str(path),), -1) if value is None else value


def _chosen(rendering: Rendering, value: Any, attribute: Any) -> list[Any]:
    items = items_of(rendering, value)
    if attribute is None:
        return items
    return [rendering.need(attribute_of(item, attribute)) for item in items]


def _join(rendering: Rendering, value: Any, separator: Any = "", attribute: Any = None) -> str:
    texts: list[str] = [rendering.text(item) for item in _chosen(rendering, value, attribute)]
    between = rendering.text(separator)
    rendering.check_length(sum(map(len, texts)) + len(between) * max(len(texts) - 1, 0))
    return between.join(texts)


def _length(rendering: Rendering, value: Any) -> int:
    return len(value) if isinstance(value, str | list | dict) else len(rendering.items(value))


def _first(rendering: Rendering, value: Any) -> Any:
    items = value if isinstance(value, str) else rendering.items(value)
    return items[0] if items else None


def _last(rendering: Rendering, value: Any) -> Any:
    items = value if isinstance(value, str) else rendering.items(value)
    return items[-1] if items else None


def _reverse(rendering: Rendering, value: Any) -> Any:
    if isinstance(value, str):
        return value[::-1]
    return items_of(rendering, value)[::-1]


def _ordered(
    rendering: Rendering, items: list[Any], attribute: Any, case_sensitive: Any = False
) -> list[tuple[Any, Any]]:
    """Pairs of what to sort by and the item, sorted."""
    rendering.spend(len(items) * len(items).bit_length())
    keys = _chosen(rendering, items, attribute)
    if all(parse_number(key) is not None for key in keys):
        keys = [number(key) for key in keys]
    elif not case_sensitive:
        keys = [str.lower(key) if isinstance(key, str) else key for key in keys]

    def compare(one: tuple[Any, Any], other: tuple[Any, Any]) -> int:
        return order(rendering, one[0], other[0])

    return sorted(zip(keys, items, strict=True), key=cmp_to_key(compare))


def _sort(
    rendering: Rendering,
    value: Any,
    reverse: Any = False,
    case_sensitive: Any = False,
    attribute: Any = None,
) -> list[Any]:
    pairs = _ordered(rendering, rendering.items(value), attribute, case_sensitive)
    return [item for _, item in (reversed(pairs) if reverse else pairs)]


def _smallest(rendering: Rendering, value: Any, attribute: Any = None) -> Any:
    pairs = _ordered(rendering, rendering.items(value), attribute)
    return pairs[0][1] if pairs else None


def _largest(rendering: Rendering, value: Any, attribute: Any = None) -> Any:
    pairs = _ordered(rendering, rendering.items(value), attribute)
    return pairs[-1][1] if pairs else None


def _group(rendering: Rendering, value: Any, attribute: Any) -> list[list[Any]]:
    pairs = _ordered(rendering, rendering.items(value), attribute)
    groups = [list(same) for _, same in groupby(pairs, key=lambda pair: pair[0])]
    return [[attribute_of(group[0][1], attribute), [item for _, item in group]] for group in groups]


def _unique(rendering: Rendering, value: Any, attribute: Any = None) -> list[Any]:
    seen, kept = set(), []
    items = items_of(rendering, value)
    for item, key in zip(items, _chosen(rendering, items, attribute), strict=True):
        text = rendering.text(key).lower()
        if text not in seen:
            seen.add(text)
            kept.append(item)
    return kept


def _total(rendering: Rendering, value: Any, attribute: Any = None, start: Any = 0) -> Number:
    total = number(start)
    for item in _chosen(rendering, value, attribute):
        total = ARITHMETIC["+"](rendering, total, item)
    return total


def _batch(rendering: Rendering, value: Any, count: Any) -> list[list[Any]]:
    items, count = items_of(rendering, value), max(whole(count), 1)
    return [items[start : start + count] for start in range(0, len(items), count)]


def _mapping(rendering: Rendering, value: Any) -> dict[str, Any]:
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise ValueError("this is no mapping")
    rendering.spend(len(value))
    return value


def _pairs(rendering: Rendering, value: Any) -> list[list[Any]]:
    return [[key, inner] for key, inner in _mapping(rendering, value).items()]


LIST_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "batch": _batch,
        "count": _length,
        "dictsort": lambda rendering, value: sorted(_pairs(rendering, value), key=itemgetter(0)),
        "first": _first,
        "groupby": _group,
        "items": _pairs,
        "join": _join,
        "keys": lambda rendering, value: list(_mapping(rendering, value)),
        "last": _last,
        "length": _length,
        "list": items_of,
        "max": _largest,
        "min": _smallest,
        "reverse": _reverse,
        "sort": _sort,
        "sum": _total,
        "unique": _unique,
        "values": lambda rendering, value: list(_mapping(rendering, value).values()),
    }
)
