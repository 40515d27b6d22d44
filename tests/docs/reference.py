"""docs/plugins/reference.md, as the code has it.

`python -m tests.docs.reference` writes it.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from gateway import hooks
from gateway.hooks import spec
from gateway.hooks.load import complaints
from gateway.mail.headers import Field
from tests.docs.blocks import PLUGINS
from tests.docs.docstring import Docstring

FILE = PLUGINS / "reference.md"

CHAPTERS: dict[str, tuple[str, ...]] = {
    "Answers": ("Accept", "Reject", "Tempfail", "Discard", "Quarantine", "Delay"),
    "The plugin": ("Plugin", "Context", "Login"),
    "Messages": ("Client", "Message", "Recipient", "Headers", "Field", "TextPart"),
    "Deliveries": (
        *("Delivery", "Attempt", "Outcome", "Disposition", "Route", "Hop", "Source", "TlsLevel"),
        "Credentials",
    ),
    "Events": ("Event",),
    "Limits": ("Limits", "Rate", "Take", "Cell", "Lease"),
    "The DNS": ("Resolver",),
    "Secret keys": ("KeyFile", "SecretKey"),
    "Conditions": ("Condition",),
}

OTHERS = {
    "API_VERSION": "The version of this interface, as MAJOR.MINOR: see [Publishing](publishing.md"
    "#versions).",
    "Action": "The type of all answers: `Accept | Reject | Tempfail | Discard | Quarantine | "
    "Delay`.",
    "Duration": "The type of a field in a configuration, in seconds. Users write `30s`, `5m`, `4h` "
    "or `5d`.",
    "Size": "The type of a field in a configuration, in octets. Users write `64KiB` or `10MB`.",
    "RateField": "The type of a field in a configuration, a [`Rate`](#rate). Users write `100/s` "
    "or `5000/h`.",
    "SitePath": "The type of a field in a configuration, a `Path`. A relative one starts from the "
    "folder of `gateway.yaml`. It need not exist.",
    "SiteFile": "As `SitePath`, and there must be a file that can be read.",
    "When": "The type of a field in a configuration for a condition, with the keys of "
    "[`when`](../configuration.md#when).",
    "domain_name": "",
    "hookimpl": "Marks a method as a hook. It takes no options.",
    "ForbiddenChangeError": "",
    "MessageSealedError": "",
    "TextPartError": "",
    "NoSuchDomainError": "",
    "ResolutionError": "",
}
"""Names that are no chapter; '' where the docstring says it."""

FOR_THE_GATEWAY: dict[str, tuple[str, ...]] = {
    "Client": ("checkpoint", "restore"),
    "Cell": ("pack", "unpack"),
    "Condition": ("needs", "by_recipient", "matches_recipient"),
    "Delivery": (
        *("checkpoint", "close", "guard", "in_seven_bits", "octets", "proceed", "restore"),
    ),
    "Headers": ("copy", "restore", "seal", "state"),
    "Limits": ("close", "open", "path", "places"),
    "Login": ("checkpoint", "forget", "guard", "restore"),
    "Message": (
        *("checkpoint", "equals", "guard", "octets", "receive", "receive_large", "restore"),
        *("seal", "take", "take_recipients"),
    ),
    "Outcome": ("problem",),
    "Plugin": ("config_model",),
    "Recipient": ("checkpoint", "guard", "join", "keep_original", "restore", "verify"),
    "Resolver": ("authenticated", "close"),
    "TextPart": ("reset", "restore", "splice", "state"),
}
"""What is there because the gateway itself works with the same objects."""

MADE_BY_PLUGINS = (
    *CHAPTERS["Answers"],
    *("Outcome", "Route", "Hop", "Source", "Credentials", "Event", "Rate", "Take", "KeyFile"),
)

_PARTS = ("Runs", "May change", "Returns", "Failure")


def page() -> str:
    """The whole document."""
    lines = [
        "# Reference",
        "",
        f"All that a plugin may use, in the version {hooks.API_VERSION} of the plugin API. Every "
        "name is imported from `gateway.hooks`. What plugins are tested with is in "
        "[Testing a plugin](testing.md).",
        "",
        *(f"- [{title}](#{anchor(title)})" for title in ("The hooks", *CHAPTERS, "Other names")),
        "",
        "## The hooks",
        "",
        "In the order in which a message meets them. A hook that may be async is a `def` or an "
        "`async def`. With `blocking = True`, hooks are plain functions and run in threads.",
        "",
        *hook_table(),
    ]
    for section in hook_sections().values():
        lines += ["", section]
    for title, names in CHAPTERS.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", *described(name)]
    lines += ["", "## Other names", "", "| name | meaning |", "| --- | --- |"]
    for name, text in OTHERS.items():
        lines.append(_row(f"`{name}`", text or Docstring.of(getattr(hooks, name)).line))
    return "\n".join(lines) + "\n"


def anchor(title: str) -> str:
    """What a link to a title says behind its #."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# The hooks.


def hook_table() -> list[str]:
    """The overview of the hooks, as `STAGES` has them."""
    lines = [
        "| hook | may answer | may be async | with `blocking` |",
        "| --- | --- | --- | --- |",
    ]
    for name, stage in spec.STAGES.items():
        answers = ", ".join(one.__name__ for one in stage.answers if one is not object)
        link = f"[`{call(name)}`](#{anchor(call(name))})"
        yes = "yes" if stage.may_be_async else "no"
        lines.append(_row(link, answers, yes, "yes" if _may_block(name) else "no"))
    return lines


def call(name: str) -> str:
    """A hook with its arguments: `message(message)`."""
    return f"{name}({', '.join(inspect.signature(getattr(spec, name)).parameters)})"


def _may_block(name: str) -> bool:
    """Whether a blocking plugin may have the hook."""

    def implementation(self: object) -> None:
        return None

    parameters = inspect.signature(getattr(spec, name)).parameters
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([own, *parameters.values()])
    implementation.__dict__["__signature__"] = signature
    members = {name: hooks.hookimpl(implementation), "blocking": True}
    plugin = type("Blocking", (hooks.Plugin,), members)
    return not any("blocking = True" in text for text in complaints(plugin))


def hook_sections() -> dict[str, str]:
    """The text of each hook, as its docstring has it."""
    sections = {}
    for name in spec.STAGES:
        hook = getattr(spec, name)
        summary, _, details = (inspect.getdoc(hook) or "").partition("\n\n")
        found = re.split(rf"\b({'|'.join(_PARTS)}): ", " ".join(details.split()))
        assert found[0] == "", f"{name}: {found[0]}"
        parts = dict(zip(found[1::2], found[2::2], strict=True))
        assert {"Runs", "Returns"} <= set(parts), name
        head = f"def {name}{_signature(hook, bound=False)}".replace("(", "(self, ", 1)
        lines = [
            f"- **Written**: `{head.replace('(self, )', '(self)')}`",
            *(f"- **{part}**: {parts[part].strip()}" for part in _PARTS if part in parts),
        ]
        sections[name] = "\n".join(
            [f"### `{call(name)}`", "", " ".join(summary.split()), "", *lines]
        )
    return sections


# Everything else.


def described(name: str) -> Iterator[str]:
    """What is said of a class: text, attributes, methods."""
    one: type[Any] = Field if name == "Field" else getattr(hooks, name)
    docstring = Docstring.of(one)
    yield f"### {name}"
    yield ""
    if name in MADE_BY_PLUGINS:
        yield f"`{name}{_signature(one).removesuffix(' -> None')}`"
        yield ""
    yield "\n\n".join((*docstring.paragraphs, *_raised(name, docstring)))
    members = _members(name, one)
    if issubclass(one, enum.Enum):
        yield ""
        yield "Values: " + ", ".join(f"`{name}.{member.name}`" for member in one) + "."
        return
    rows = list(_attributes(name, one, docstring, members))
    if rows:
        yield ""
        yield from rows
    functions = [(key, value) for key, value in members.items() if _is_method(value)]
    if functions:
        yield ""
    for key, value in functions:
        function = getattr(value, "__func__", value)
        how = "await " if inspect.iscoroutinefunction(function) else ""
        bound = f"{name}." if isinstance(value, classmethod | staticmethod) else ""
        yield f"- `{how}{bound}{key}{_signature(function)}`: {Docstring.of(function).line}"


def _raised(name: str, docstring: Docstring) -> Iterator[str]:
    if name not in MADE_BY_PLUGINS:
        return
    for error, reason in docstring.sections.get("Raises", {}).items():
        yield f"Making one raises `{error}`: {reason}"


def _members(name: str, one: type) -> dict[str, Any]:
    """What a class has that plugins may use, by name."""
    hidden = FOR_THE_GATEWAY.get(name, ())
    members: dict[str, Any] = {}
    for owner in one.__mro__:
        if owner.__module__.startswith("gateway"):
            for key in (*inspect.get_annotations(owner), *vars(owner)):
                if not key.startswith("_") and key not in hidden:
                    members.setdefault(key, vars(owner).get(key))
    return members


def _attributes(
    name: str, one: type, docstring: Docstring, members: dict[str, Any]
) -> Iterator[str]:
    """A table of the attributes and properties."""
    meanings = {}
    for names, text in docstring.sections.get("Attributes", {}).items():
        # `address: the IP address; port: its port.` are two.
        pieces = re.split(rf"; ({'|'.join(members)}): ", text)
        for key, meaning in zip((names, *pieces[1::2]), pieces[::2], strict=True):
            for single in key.split(", "):
                meanings[single] = meaning
    types = {}
    for key, value in members.items():
        if isinstance(value, property | cached_property):
            getter = value.fget if isinstance(value, property) else value.func
            types[key] = str(inspect.signature(getter).return_annotation)  # type: ignore[arg-type]
            meanings[key] = Docstring.of(value).line
            if isinstance(value, property) and value.fset is not None:
                meanings[key] += " Can be set."
        elif not _is_method(value):
            types[key] = _annotation(one, key)
    for key in set(meanings) - set(types) - set(FOR_THE_GATEWAY.get(name, ())):
        types[key] = ""
    others = [key for key in types if key not in meanings]
    if others and name not in MADE_BY_PLUGINS:
        yield f"It has {', '.join(f'`{key}: {types[key]}`' for key in others)}."
    # Those that are described together stand together.
    rows: dict[str, list[str]] = {}
    for key, meaning in meanings.items():
        if key in types:
            rows.setdefault(meaning, []).append(key)
    if not rows:
        return
    if others and name not in MADE_BY_PLUGINS:
        yield ""
    yield "| attribute | type | meaning |"
    yield "| --- | --- | --- |"
    for meaning, keys in rows.items():
        kinds = dict.fromkeys(f"`{types[key]}`" for key in keys if types[key])
        yield _row(f"`{'`, `'.join(keys)}`", ", ".join(kinds), f"{meaning.rstrip('.')}.")


def _annotation(one: type, key: str) -> str:
    for owner in one.__mro__:
        found = inspect.get_annotations(owner).get(key)
        if found is not None:
            return re.sub(r"^ClassVar\[(.*)\]$", r"\1", str(found))
    return ""


def _is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def _signature(function: Callable[..., Any], *, bound: bool = True) -> str:
    """As it is called: without `self`, and with types as they are written."""
    signature = inspect.signature(function)
    parts: list[str] = []
    star = False
    for key, parameter in signature.parameters.items():
        if bound and key in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        text = f"{key}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            factory = type(parameter.default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS"
            text += f" = {'{}' if factory else repr(parameter.default)}"
        parts.append(text)
    return f"({', '.join(parts)}) -> {signature.return_annotation}"


if __name__ == "__main__":
    FILE.write_text(page())
