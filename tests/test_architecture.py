"""The structure of the code, held by a walk over its imports.

`LAYERS` is the table to learn it from: a module imports from its own layer and from those above it
in the table, never from one below. A name stands for a module, or for a package with all that is
not listed elsewhere.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS: Mapping[str, str] = {
    "octets and text": """
        mail.jis mail.charset mail.transfer_encoding mail.encoded_word mail.address
        mail.header_piece mail.header_words mail.folding mail.address_list mail.header_text
        mail.quoted_printable mail.encoded_text mail.line_end
        configuration.network configuration.quantity
        spool.queue_id delivery.reply queue.explanation limits
    """,
    "a message": """
        mail.guard mail.notes mail.client mail.recipient
        mail.headers mail.mime mail.text_part mail.body mail.message mail.seven_bit
        mail.pending_text mail
        smtp.content smtp.future_release smtp.esmtp smtp.line_reader
    """,
    "what becomes of it": """
        attempt events hooks.actions
        queue.schedule queue.bounce queue.report_part queue.lane queue.memory spool.queue_entry
    """,
    "what plugins are written against": """
        resolver hooks.api hooks.plugin hooks.spec hooks.paths hooks.condition hooks.key_file hooks
    """,
    "configuration": """
        configuration
    """,
    "log and control of a process": """
        log_line log process.notify process.control process.assignment process.balance
        process.handover
    """,
    "the plugin chain": """
        hooks.reference hooks.load hooks.catalogue hooks.lifecycle hooks.watchdog
        hooks.histogram hooks.breaker hooks.thread_pool hooks.thread_context hooks.policy
        hooks.step hooks.replica hooks.invocation hooks.trace hooks.division hooks.chain
    """,
    "the queue on disk": """
        spool queue.placement
    """,
    "the way to the next hop": """
        delivery
    """,
    "mail on its way, and what browsers ask for": """
        queue smtp web metrics
    """,
    "processes": """
        process
    """,
    "commands, and what tests are made with": """
        cli testing pytest_plugin scaffold history trial doctor __main__
    """,
}

LIBRARIES: Mapping[str, str] = {
    "aiosmtpd": "smtp.session testing",
    "aiosmtplib": "delivery.connection delivery.greeting delivery.login delivery.protection",
    "apsw": "spool queue.listing queue.change trial.scratch doctor.shards doctor.sample",
    "argon2": "configuration.users",
    "click": "cli testing",
    "dns": "resolver testing",
    "httptools": "delivery.https web",
    "pluggy": "hooks",
    "prometheus_client": "metrics.exposition",
    "uvicorn": "web",
    "uvloop": "process.worker process.service",
    "yaml": "configuration.yaml_document configuration.users",
}
"""The only places, modules or packages, of libraries that have a place of their own."""

PURE = """
    mail.jis mail.charset mail.transfer_encoding mail.encoded_word mail.address
    mail.header_piece mail.header_words mail.folding mail.address_list mail.header_text
    mail.quoted_printable mail.encoded_text mail.line_end
    web.health web.mount web.forwarded
    mail.headers mail.mime mail.text_part mail.body mail.message mail
    configuration.quantity spool.queue_id delivery.reply queue.explanation
    smtp.content smtp.esmtp
    attempt events hooks.actions
    queue.schedule queue.bounce queue.report_part spool.queue_entry queue.lane queue.placement
    queue.memory smtp.future_release
    limits.rate limits.gcra process.balance delivery.dane delivery.mta_sts delivery.failures
    mail.seven_bit mail.pending_text
    mail.client mail.guard mail.notes mail.recipient
    doctor.finding doctor.mounts mail.checkpoint mail.large_content mail.transparency smtp.allowance
    hooks.breaker hooks.histogram metrics.catalogue metrics.held metrics.readings
    spool.database_page spool.expectation spool.held_reason spool.write_ahead_log
    history.happening history.log_record history.story
    testing.changes testing.comparison testing.diff testing.fields testing.spans
    testing.conformance.report testing.conformance.request
    testing.corpus.envelopes testing.corpus.headers testing.corpus.malformed
    testing.corpus.multiparts testing.corpus.sample testing.corpus.texts
"""
"""Modules without I/O, which take the time as an argument. Who claims to be pure must be here."""

HANDED_IN = {
    ("gateway.queue.placement", "gateway.hooks.chain"),
    ("gateway.queue.placement", "gateway.spool.shard"),
}
"""Imports by a pure module of a class of one that is not, whose objects it is given."""

TYPES_BACK = {("gateway.spool.queue_entry", "gateway.spool.shard")}
"""Imports from a lower layer that only type checkers see."""

IMPURE = {
    *("asyncio", "concurrent", "fcntl", "logging", "os", "pathlib", "random", "secrets", "select"),
    *("signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request"),
}

MEANINGLESS = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}

MAX_LINES = 450


@dataclass(frozen=True)
class Import:
    """One imported module; `checking` where only type checkers see it."""

    module: str
    checking: bool


@dataclass(frozen=True)
class Module:
    """A module of ours, by its dotted name."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """Its source."""
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        """What its source says."""
        return ast.parse(self.text, str(self.path))

    @property
    def claims_to_be_pure(self) -> bool:
        """Whether its docstring says so."""
        return "Pure" in self.text and "Pure" in (ast.get_docstring(self.tree) or "")

    @cached_property
    def imports(self) -> frozenset[Import]:
        """Everything that it imports, anywhere in it."""
        return frozenset(imports_of(self.tree))


def imports_of(tree: ast.Module) -> Iterator[Import]:
    """Every import, with `from package import module` as the module."""
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [_module(f"{node.module}.{alias.name}") for alias in node.names]
        yield from (Import(name, id(node) in checking) for name in names)


def _module(dotted: str) -> str:
    """The module that `from a.b import c` needs: a.b.c if that is one of ours, otherwise a.b."""
    path = ROOT / dotted.replace(".", "/")
    if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
        return dotted
    return dotted.rpartition(".")[0]


def _modules(package: str) -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.is_relative_to(ROOT / "gateway/scaffold/template"):
            continue  # the text of a new plugin, with its tests
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


GATEWAY = _modules("gateway")
PLUGINS = _modules("plugins")
OURS = {**GATEWAY, **PLUGINS}

LISTED = {
    f"gateway.{name}": number
    for number, names in enumerate(LAYERS.values())
    for name in names.split()
}


def _listed(module: str) -> str:
    """The name in `LAYERS` that a module goes by: its own, or that of the nearest package."""
    while module not in LISTED and module:
        module = module.rpartition(".")[0]
    return module


LAYER_OF = {name: LISTED[_listed(name)] for name in GATEWAY if _listed(name)}


def _within(module: str, places: str) -> bool:
    full = [f"gateway.{place}" for place in places.split()]
    return any(module == place or module.startswith(f"{place}.") for place in full)


def test_every_form_of_import_is_seen() -> None:
    source = """
import os, gateway.mail.mime as m
from gateway import __version__
from gateway.spool import queue_id
from gateway.hooks import spec
def f():
    import click
if TYPE_CHECKING:
    from gateway.hooks.plugin import Context
"""
    assert set(imports_of(ast.parse(source))) == {
        Import("os", False),
        Import("gateway.mail.mime", False),
        Import("gateway.spool.queue_id", False),
        Import("gateway", False),
        Import("gateway.hooks.spec", False),
        Import("click", False),
        Import("gateway.hooks.plugin", True),
    }


def test_every_module_has_one_layer() -> None:
    names = [name for names in LAYERS.values() for name in names.split()]
    assert sorted(names) == sorted(set(names))
    assert set(GATEWAY) - set(LAYER_OF) == {"gateway"}
    assert {_listed(name) for name in LAYER_OF} == set(LISTED)


def _arrows(checking: bool = False) -> list[tuple[str, str]]:
    return [
        (module.name, one.module)
        for module in GATEWAY.values()
        for one in module.imports
        if one.module in LAYER_OF and one.checking is checking
    ]


def _back(arrows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(source, target) for source, target in arrows if LAYER_OF[source] < LAYER_OF[target]]


def test_imports_point_one_way() -> None:
    layers = list(LAYERS)
    assert [
        f"{source} ({layers[LAYER_OF[source]]}) imports {target} ({layers[LAYER_OF[target]]})"
        for source, target in _back(_arrows())
    ] == []


def test_type_checkers_see_few_arrows_that_point_back() -> None:
    assert set(_back(_arrows(checking=True))) == TYPES_BACK


def test_imports_make_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for source, target in _arrows():
        graph.setdefault(source, set()).add(target)
    TopologicalSorter(graph).prepare()


def test_the_gateway_knows_no_plugin() -> None:
    assert [
        f"{module.name} imports {one.module}"
        for module in GATEWAY.values()
        for one in module.imports
        if one.module.partition(".")[0] in ("plugins", "tests", "bench", "examples")
    ] == []


def test_plugins_use_the_public_interface_only() -> None:
    refused = []
    for module in PLUGINS.values():
        own = ".".join(module.name.split(".")[:2])
        for one in module.imports:
            root = one.module.partition(".")[0]
            if root == "gateway":
                allowed = one.module == "gateway.hooks" or one.module.startswith("gateway.hooks.")
            elif root == "plugins":
                allowed = one.module == own or one.module.startswith(f"{own}.")
            else:
                allowed = root not in ("tests", "bench", "examples")
            if not allowed:
                refused.append(f"{module.name} imports {one.module}")
    assert refused == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_place(library: str) -> None:
    places = [
        module.name
        for module in GATEWAY.values()
        if any(
            one.module.partition(".")[0] == library and not one.checking for one in module.imports
        )
    ]
    assert places, "it is not used at all"
    assert [place for place in places if not _within(place, LIBRARIES[library])] == []


def test_click_is_loaded_for_commands_only() -> None:
    """Workers start without it: elsewhere only type checkers see it."""
    assert [
        module.name
        for module in PLUGINS.values()
        if Import("click", False) in module.imports and not _is_command(module.name)
    ] == []
    assert [
        module.name
        for module in GATEWAY.values()
        if Import("click", True) in module.imports and not _within(module.name, "cli")
    ] == ["gateway.hooks.spec"]


def _is_command(name: str) -> bool:
    """Whether a module of a plugin belongs to its commands."""
    return any(
        Import(name, False) in module.imports and module.name.endswith(".commands")
        for module in PLUGINS.values()
    ) or name.endswith(".commands")


def test_every_library_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {
        "aiohttp": "aiohttp",
        "aiosmtpd": "aiosmtpd",
        "aiosmtplib": "aiosmtplib",
        "apsw": "apsw",
        "argon2": "argon2-cffi",
        "authres": "authres",
        "babel": "babel",
        "click": "click",
        "cryptography": "cryptography",
        "dns": "dnspython",
        "httptools": "httptools",
        "idna": "idna",
        "jinja2": "jinja2",
        "pluggy": "pluggy",
        "prometheus_client": "prometheus-client",
        "pydantic": "pydantic",
        "pydantic_core": "pydantic",
        "pytest": "pytest",
        "sqlalchemy": "sqlalchemy",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
        "yaml": "pyyaml",
    }
    used = {one.module.partition(".")[0] for module in OURS.values() for one in module.imports}
    used -= {*sys.stdlib_module_names, "gateway", "plugins"}
    assert used == set(packages)
    extras = project["optional-dependencies"]
    optional = [line for name, lines in extras.items() if name != "dev" for line in lines]
    required = {re.split("[><]", line)[0] for line in [*project["dependencies"], *optional]}
    assert {packages[name] for name in used} <= required


def test_only_the_command_line_prints() -> None:
    printing = []
    for module in OURS.values():
        for node in ast.walk(module.tree):
            text = ""
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                text = node.func.id
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                text = f"{node.value.id}.{node.attr}"
            if text in ("print", "sys.stdout", "sys.stderr", "click.echo"):
                printing.append(f"{module.name}:{getattr(node, 'lineno', 0)}")
    assert [
        place
        for place in printing
        if not (place.startswith("gateway.cli") or _is_command(place.partition(":")[0]))
    ] == []
    assert printing, "the command line prints"


def test_modules_that_claim_to_be_pure_are_listed() -> None:
    claims = {
        name.removeprefix("gateway.")
        for name, module in GATEWAY.items()
        if module.claims_to_be_pure
    }
    assert claims
    assert claims - set(PURE.split()) == set()


@pytest.mark.parametrize(
    "name",
    [
        *(f"gateway.{name}" for name in PURE.split()),
        *(name for name, module in PLUGINS.items() if module.claims_to_be_pure),
    ],
)
def test_a_pure_module_does_no_io_and_reads_no_clock(name: str) -> None:
    module = OURS[name]
    assert {one.module for one in module.imports} & IMPURE == set()
    calls = [ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    assert [
        call
        for call in calls
        if call in ("open", "input", "print")
        or call.endswith(("datetime.now", "datetime.utcnow", "date.today"))
    ] == []
    impure = [
        one.module
        for one in module.imports
        if one.module in GATEWAY
        and one.module.removeprefix("gateway.") not in PURE.split()
        and {inner.module for inner in GATEWAY[one.module].imports} & IMPURE
        and not one.checking
        and (name, one.module) not in HANDED_IN
    ]
    assert impure == []


@pytest.mark.parametrize("folder", ["gateway", "plugins", "bench", "examples", "tests"])
def test_modules_are_named_for_something(folder: str) -> None:
    for path in (ROOT / folder).rglob("*"):
        assert path.stem.lower() not in MEANINGLESS, path


@pytest.mark.parametrize("name", OURS)
def test_a_file_is_one_noun(name: str) -> None:
    lines = len(OURS[name].text.splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: these are two nouns"


def test_each_bundled_plugin_is_offered_like_anyone_elses_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    offered = project["entry-points"]["gateway.plugins"]
    bundled = {name.split(".")[1] for name in PLUGINS if name.count(".") == 1}
    assert set(offered) == bundled
    for name, value in offered.items():
        module, _, plugin_class = value.partition(":")
        assert module == f"plugins.{name}"
        names = [
            node.name for node in ast.walk(PLUGINS[module].tree) if isinstance(node, ast.ClassDef)
        ]
        assert plugin_class in names
        assert (ROOT / "plugins" / name / "README.md").exists()


def test_no_possessive_quantifier_stands_on_a_group() -> None:
    """Python before 3.11.5, Debian 12's among them, matches such patterns wrong."""
    found = [
        f"{module.name}: {node.value!r}"
        for module in OURS.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and re.search(r"(?<![\\(])\)[*+?]\+", _CLASS.sub("x", _text(node.value)))
    ]
    assert found == []


_CLASS = re.compile(r"(?<!\\)\[\^?\]?(?:\\.|[^\]\\])*\]")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
