from __future__ import annotations

import pytest

from plugins.throttle.pattern import check_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "too many connections",
        r"\[TSS\d+\]",
        "a.*b.*c",
        r"(?:\d{1,3}\.){3}\d{1,3}",
        "a++b++c++d",
        "(?:foo|bar)+",
        r"(?=.*x)y",
        "(a)\\1*b",
        "[[:alpha:]]x",
        "受信.{0,20}拒否",
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_patterns_that_can_be_used(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "is no regular expression"),
        ("a{2,1}", "is no regular expression"),
        ("", "matches an empty text"),
        ("x*", "matches an empty text"),
        ("(a+)+b", "could take very long"),
        ("(a|a)*b", "could take very long"),
        ("(?:a|ab)*c", "could take very long"),
        ("(.*,)*x", "could take very long"),
        ("a.*b.*c.*d", "could take very long"),
        (r"\d+\d+\d+x", "could take very long"),
        ("((a{1,20}){1,20}){1,20}", "could take very long"),
        ("(?>a*b*c*)d", "could take very long"),
        ("(?=a*b*c*d)x", "could take very long"),
        ("(a)?(?(1)b*c*d*|e)x", "could take very long"),
        ("(?:ab)++c", "some Pythons err"),
        ("(a)?+c", "some Pythons err"),
    ],
)
def test_patterns_that_cannot(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_pattern(pattern)
