"""The configuration that a plugin asks for: described, strict, with defaults that hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError

from gateway.testing.conformance.examination import Examination

_SECRET = re.compile(r"(^|_)(password|passwd|secret|token|api_?key|credentials?)$", re.IGNORECASE)


async def check(examination: Examination) -> str:
    """Looks at the model, and at those inside of it."""
    candidate = examination.candidate
    try:
        candidate.model.model_json_schema()
    except Exception as error:
        name = type(error).__name__
        examination.error(
            f"{candidate.model.__name__} has no JSON schema, which editors complete from: "
            f"{name}: {str(error).splitlines()[0]}; add WithJsonSchema to the type that it names"
        )
    count = 0
    for path, model in _models(candidate.model):
        if model.model_config.get("extra") != "forbid":
            examination.warn(
                f"{model.__name__} lets misspelt keys pass; add "
                'model_config = ConfigDict(frozen=True, extra="forbid")'
            )
        for name, field in model.model_fields.items():
            count += 1
            key = f"{path}{name}"
            if not (field.description or "").strip():
                examination.warn(f'{key} has no description; write Field(description="...")')
            if _SECRET.search(name) and _is_text(field.annotation):
                examination.warn(
                    f"{key} is plain text, and would be shown in logs and errors; use SecretStr"
                )
    _check_defaults(examination)
    return f"{count} keys" if count != 1 else "1 key"


def _models(
    model: type[BaseModel], path: str = "", known: frozenset[type] = frozenset()
) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and all that its fields are made of, each with the key that leads to it."""
    yield path, model
    known |= {model}
    for name, field in model.model_fields.items():
        for inner in _inside(field.annotation):
            # Those of the gateway itself, as `when` has it, are not the plugin's to mend.
            if inner not in known and not inner.__module__.startswith("gateway."):
                yield from _models(inner, f"{path}{name}.", known)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in get_args(annotation):
        yield from _inside(argument)


def _is_text(annotation: Any) -> bool:
    if annotation in (SecretStr, SecretBytes):
        return False
    return annotation is str or any(_is_text(argument) for argument in get_args(annotation))


def _check_defaults(examination: Examination) -> None:
    """Checks defaults as if they had been written in gateway.yaml."""
    candidate = examination.candidate
    given = dict(candidate.settings)
    names = {"model_config": ConfigDict(validate_default=True), "__module__": __name__}
    strict: type[BaseModel] = type(candidate.model.__name__, (candidate.model,), names)
    try:
        strict.model_validate(given, context={"base": candidate.config.base})
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            if one["loc"] and one["loc"][0] not in given:
                key = ".".join(map(str, one["loc"]))
                examination.warn(f"the default of {key} would be refused: {one['msg']}")
    except Exception as error:
        examination.warn(f"its defaults cannot be checked: {type(error).__name__}: {error}")
