"""What pydantic found wrong in a document, said as problems: where it is, what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from gateway.configuration.yaml_document import ConfigError, KeyPath, Problem, YamlDocument

ModelT = TypeVar("ModelT", bound=BaseModel)


def check(
    model: type[ModelT],
    document: YamlDocument,
    data: Any,
    path: KeyPath = (),
    context: Mapping[str, Any] | None = None,
) -> ModelT:
    """Makes a model of the values at a path of a document.

    A key that the model does not know is an error, unless the model says itself what to do with
    such keys (`extra` in its `model_config`).

    Raises:
        ConfigError: with everything that is wrong.
    """
    found = [
        document.problem((*path, *where), unknown_key(where[-1], known), key=True)
        for where, known in _ignored_keys(model, data, ())
    ]
    try:
        result = model.model_validate(data, context=dict(context or {}))
    except ValidationError as error:
        found += _problems(error, model, document, data, path)
    # Raised out here, because the validation error in its traceback would show the values.
    if found:
        raise ConfigError(found)
    return result


def nearest(word: object, known: Iterable[str]) -> str:
    """Says which of the known words was meant, or `` if none is near."""
    names = list(known)
    close = get_close_matches(str(word), names, 1, 0.6)
    if not close:
        folded = {name.casefold(): name for name in names}
        close = [folded[str(word).casefold()]] if str(word).casefold() in folded else []
    return f'did you mean "{close[0]}"?' if close else ""


def unknown_key(key: object, known: Iterable[str]) -> str:
    """The message for a key that is not known: the nearest known one, or all of them."""
    names = list(known)
    if not names:
        return "unknown key; nothing can be set here"
    return f"unknown key; {nearest(key, names) or 'known keys are ' + ', '.join(names)}"


def kind(value: object) -> str:
    """Names what a value is, as the people who write YAML call it. Never shows the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"


def key_names(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys that a model takes in YAML."""
    names: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            if isinstance(choice, AliasPath):
                names[str(choice.path[0])] = info
            elif choice is not None:
                names[choice] = info
        config = model.model_config
        if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
            names[name] = info
    return names


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Unwraps Annotated, unions and root models."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _alternatives(annotation.model_fields["root"].annotation)
    elif origin in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _alternatives(choice)
    else:
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [
        choice
        for choice in _alternatives(annotation)
        if isinstance(choice, type) and issubclass(choice, BaseModel)
    ]


def _inside(annotation: Any, step: object) -> tuple[Any, FieldInfo | None]:
    """What may stand at a key or an index below a value of this type."""
    found: list[Any] = []
    field: FieldInfo | None = None
    for choice in _alternatives(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            info = key_names(choice).get(str(step))
            if info is not None:
                field = info
                found.append(info.annotation)
            continue
        arguments = get_args(choice)
        if not arguments or get_origin(choice) is Literal:
            continue
        if isinstance(get_origin(choice), type) and issubclass(get_origin(choice), Mapping):
            found.append(arguments[-1])
        elif isinstance(step, int):
            fixed = get_origin(choice) is tuple and arguments[-1] is not Ellipsis
            found.append(arguments[min(step, len(arguments) - 1)] if fixed else arguments[0])
    return (Union[tuple(found)] if found else Any), field  # noqa: UP007 - the types are data here


def _ignored_keys(annotation: Any, data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, list[str]]]:
    """Finds keys that pydantic would drop in silence."""
    models = _models(annotation)
    if isinstance(data, dict):
        # Of several models only validation can tell which one is meant.
        silent = len(models) == 1 and "extra" not in models[0].model_config
        known = key_names(models[0]) if models else {}
        for key, value in data.items():
            if silent and key not in known:
                yield (*path, key), list(known)
            else:
                yield from _ignored_keys(_inside(annotation, key)[0], value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _ignored_keys(_inside(annotation, index)[0], value, (*path, index))


_EXPECTED = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number, for example 10",
    "int_parsing": "a whole number, for example 10",
    "int_from_float": "a whole number, for example 10",
    "float_type": "a number, for example 0.5",
    "float_parsing": "a number, for example 0.5",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, for example [a, b]",
    "tuple_type": "a list, for example [a, b]",
    "set_type": "a list, for example [a, b]",
    "frozen_set_type": "a list, for example [a, b]",
    "dict_type": "a mapping, for example {key: value}",
    "mapping_type": "a mapping, for example {key: value}",
    "model_type": "a mapping, for example {key: value}",
    "model_attributes_type": "a mapping, for example {key: value}",
    "dataclass_type": "a mapping, for example {key: value}",
    "path_type": "the path of a file, for example keys/s1.pem",
}


def _problems(
    error: ValidationError, model: type[BaseModel], document: YamlDocument, data: Any, path: KeyPath
) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        where, annotation, field, value = _locate(item["loc"], model, data)
        sort, context = item["type"], item.get("ctx", {})
        is_key = False
        if sort in ("extra_forbidden", "unexpected_keyword_argument"):
            is_key = True
            known = dict.fromkeys(
                name
                for parent in _models(_annotation_at(model, where[:-1]))
                for name in key_names(parent)
            )
            message = unknown_key(where[-1], known)
        elif sort in ("missing", "missing_argument"):
            message = "missing" + _meaning(field)
        elif sort == "invalid_key":
            is_key = True
            message = f"a key must be text, not {kind(item['input'])}; put it in quotes"
        elif sort in ("value_error", "assertion_error"):
            message = " ".join(str(context.get("error") or item["msg"]).split())
        elif sort in ("literal_error", "enum"):
            message = f"expected {context['expected']}, not {kind(value)}"
            if isinstance(value, str):
                words = [
                    str(word) for choice in _alternatives(annotation) for word in get_args(choice)
                ]
                message = f"expected {context['expected']}; {nearest(value, words)}".rstrip("; ")
        elif sort == "too_short":
            least = context["min_length"]
            if isinstance(value, list) and len(value) >= least:
                continue  # there are enough, but they are wrong, which has been said
            message = f"expected at least {least}{_example(field)}"
        elif sort in _EXPECTED:
            message = f"expected {_EXPECTED[sort]}, not {kind(value)}"
            if _EXPECTED[sort] == "text" and isinstance(value, bool | int | float):
                message += "; put it in quotes"
            message += _example(field)
        else:
            # Pydantic's messages for limits and formats name what is expected, not the value.
            message = item["msg"].removeprefix("Input ").replace("should ", "must ")
        yield document.problem((*path, *where), message, key=is_key)


def _locate(
    location: tuple[int | str, ...], model: type[BaseModel], data: Any
) -> tuple[KeyPath, Any, FieldInfo | None, Any]:
    """Follows a location of pydantic's through the data.

    Its steps for the branches of a union and for validators are no keys of the file.
    """
    where: list[Any] = []
    annotation: Any = model
    field: FieldInfo | None = None
    for step in location:
        within: Any = data
        if isinstance(within, dict):
            key = (
                step if step in within else next((key for key in within if str(key) == step), None)
            )
            if key is not None:
                annotation, field = _inside(annotation, key)
                data = within[key]
                where.append(key)
                continue
            # A key that is missing: known to the model, but not in the file.
            inner, info = _inside(annotation, step)
            if info is not None:
                annotation, field, data = inner, info, None
                where.append(step)
        elif isinstance(within, list) and isinstance(step, int) and step < len(within):
            annotation, field = _inside(annotation, step)[0], field
            data = within[step]
            where.append(step)
    return tuple(where), annotation, field, data


def _annotation_at(model: type[BaseModel], path: KeyPath) -> Any:
    annotation: Any = model
    for step in path:
        annotation, _ = _inside(annotation, step)
    return annotation


def _example(field: FieldInfo | None) -> str:
    return f"; for example: {field.examples[0]}" if field is not None and field.examples else ""


def _meaning(field: FieldInfo | None) -> str:
    description = (
        f"; {field.description.rstrip('.')}" if field is not None and field.description else ""
    )
    return description + _example(field)
