"""The links between documents, and the files of the code that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, PACKAGES, PLUGINS, ROOT, TUTORIAL, prose
from tests.docs.reference import anchor

# The others name files of a package.
OF_THE_GATEWAY = [one for one in DOCUMENTS if one != TUTORIAL and PACKAGES not in one.parents]


def _anchors(document: Path) -> set[str]:
    return {anchor(title) for title in re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?:", target):
            continue
        path, _, title = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target}"
        if title:
            assert title in _anchors(file), f"{document.name}: {target}"


@pytest.mark.parametrize("document", OF_THE_GATEWAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_code_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    named = re.findall(r"`((?:gateway|plugins|tests|bench|examples)/[\w./]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_document_is_linked_from_the_readme() -> None:
    """Those for authors of plugins, and the packages, from the index of theirs."""
    for document in DOCUMENTS:
        for_authors = PLUGINS in document.parents or PACKAGES in document.parents
        index = ROOT / "README.md"
        if for_authors and document != PLUGINS / "README.md":
            index = PLUGINS / "README.md"
        targets = re.findall(r"\]\(([^)#\s]+)", prose(index))
        linked = {(index.parent / target).resolve() for target in targets}
        assert document == index or document in linked, document
