"""What refusals mean: replies of many servers, in English and in Japanese, and the rule files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hooks import Disposition, Outcome
from plugins.bounces.classification import (
    LONGEST_TEXT,
    SHIPPED,
    Classifier,
    FailureClass,
    normal,
    read,
)
from plugins.bounces.delivery_status import code_in, status_in
from tests.plugins.bounces_site import FOLDER, Site, attempt, refusal

CLASSIFIER = Classifier()


def found(reply: str, classifier: Classifier = CLASSIFIER) -> str:
    """The class of a reply as a server says it."""
    return classifier.verdict(code_in(reply), status_in(reply), reply).failure.value


def _table() -> list[tuple[str, str]]:
    """Each reply of the file, with the class that it stands under."""
    table, failure = [], ""
    for line in (FOLDER / "replies.txt").read_text().splitlines():
        if line.startswith("["):
            failure = line.strip("[]")
        elif line and not line.startswith("# "):
            table.append((line, failure))
    return table


TABLE = _table()


@pytest.mark.parametrize(("reply", "failure"), TABLE, ids=[reply[:60] for reply, _ in TABLE])
def test_what_servers_say(reply: str, failure: str) -> None:
    assert found(reply) == failure


def test_every_class_is_tested() -> None:
    assert {failure for _, failure in TABLE} == set(FailureClass)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(one, "hard") for one in ("no-such-user", "no-such-domain", "inactive")]
    + [(one, "soft") for one in ("mailbox-full", "spam", "blocked", "policy", "network", "other")],
)
def test_hard_are_the_failures_of_the_address_itself(failure: str, kind: str) -> None:
    assert FailureClass(failure).kind == kind


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        (550, "5.1.1", "no-such-user"),
        (450, "4.1.1", "no-such-user"),
        (550, "5.1.2", "no-such-domain"),
        (556, "5.1.10", "no-such-domain"),
        (550, "5.2.1", "inactive"),
        (450, "4.2.1", "server"),
        (452, "4.2.2", "mailbox-full"),
        (552, "5.3.4", "too-large"),
        (451, "4.4.1", "network"),
        (0, "4.4.7", "network"),
        (451, "4.3.0", "server"),
        (501, "5.5.4", "protocol"),
        (554, "5.6.0", "content"),
        (550, "5.7.1", "policy"),
        (550, "5.7.23", "authentication"),
        (421, "4.7.28", "rate-limited"),
        (550, "5.1.8", "policy"),
        (552, "5.0.0", "mailbox-full"),
        (421, "4.0.0", "server"),
        (550, "5.0.0", "other"),
        (0, "", "other"),
    ],
)
def test_codes_count_where_the_text_says_nothing(code: int, status: str, failure: str) -> None:
    for text in ("", "Sorry!", "hanako@example.net"):
        assert CLASSIFIER.verdict(code, status, text).failure.value == failure


@pytest.mark.parametrize(
    "address",
    [
        "spam@example.net",
        "user-unknown@example.net",
        "postmaster@blocked.spamhaus.example",
        "mailbox.full@quota.example",
        "<no-such-user@example.net>",
    ],
)
def test_an_address_is_not_taken_for_what_the_server_says(address: str) -> None:
    assert found(f"550 {address} 5.0.0 Sorry") == "other"
    assert found(f"552 5.2.2 {address}: Mailbox full") == "mailbox-full"


def test_a_text_is_one_line_in_lower_case_with_an_at_for_each_address() -> None:
    text = "550 5.1.1\r\n <Hanako@Example.NET>...  ＵＳＥＲ\tunknown; ｶﾅ, cf. a@[192.0.2.1]"
    assert normal(text) == "550 5.1.1 <@>... user unknown; カナ, cf. @"
    assert len(normal("x" * 5000)) == LONGEST_TEXT
    assert len(normal("㌔" * 5000)) <= LONGEST_TEXT


def test_only_the_beginning_of_a_text_counts() -> None:
    assert found("x" * LONGEST_TEXT + " user unknown") == "other"


@settings(deadline=None)
@given(st.text(max_size=1500), st.integers(0, 599), st.sampled_from(["", "5.1.1", "x", "9.9.9"]))
def test_no_text_is_too_odd(text: str, code: int, status: str) -> None:
    verdict = CLASSIFIER.verdict(code, status, text)
    assert verdict.failure in FailureClass


# The files.


def test_the_shipped_rules_are_documented_and_each_has_its_use() -> None:
    """Each rule decides at least one of the replies above, or a code."""
    used = {
        CLASSIFIER.verdict(code_in(reply), status_in(reply), reply).rule for reply, _ in TABLE
    } | {
        CLASSIFIER.verdict(code, status, "").rule
        for code in (0, 421, 500, 530, 552)
        for status in ("", *(f"5.{x}.{y}" for x in range(8) for y in range(30)))
    }
    everything = {f"rules.yaml, rule {number + 1}" for number in range(len(read(SHIPPED)))}
    assert everything - used == set()
    text = SHIPPED.read_text()
    assert all(failure in text[: text.index("- class")] for failure in FailureClass)


def test_patterns_are_written_for_what_they_see() -> None:
    """Lower case, as the text is; and no group repeats without an end."""
    for rule in read(SHIPPED):
        for pattern in rule.text:
            assert not re.search(r"[A-Z]", re.sub(r"\\.", "", pattern)), pattern
            assert not re.search(r"(?<!\\)\)(?:[*+]|\{\d+,\})", pattern), pattern


def test_a_site_s_rules_are_asked_first(site: Site) -> None:
    rules = site.folder / "rules.yaml"
    rules.write_text(
        "- class: spam\n  text: sorry\n"
        "- class: inactive\n  status: [5.1.1, '*.9.*']\n  code: 550\n"
        "- class: policy\n  text: [one, 'tw[o0]']\n  status: 5.1.1\n"
    )
    classifier = Classifier(rules)
    assert found("550 5.1.1 SORRY: user unknown", classifier) == "spam"
    assert found("550 5.1.1 user unknown", classifier) == "inactive"
    assert found("551 5.1.1 tw0: user unknown", classifier) == "policy"
    assert found("551 5.1.1 three: user unknown", classifier) == "no-such-user"
    assert found("550 4.9.7", classifier) == "inactive"
    assert classifier.verdict(550, "5.1.1", "Sorry!").rule == "rules.yaml, rule 1"
    assert classifier.verdict(550, "5.1.1", "Sorry!").matched == "sorry"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a list of rules"),
        ("class: spam", "expected a list of rules"),
        ("- spam", "rule 1: Input should be"),
        ("- class: spam", "rule 1: a rule needs status, code or text"),
        ("- {class: spam, text: x}\n- {class: spma, text: x}", "rule 2: there is no class 'spma'"),
        ("- {class: spam, text: '('}", "rule 1: text: '(' is no regular expression"),
        ("- {class: spam, status: 5.1}", "rule 1: status: "),
        ("- {class: spam, status: '5.x.1'}", "'5.x.1' is no status; expected one such as"),
        ("- {class: spam, code: 250}", "250 is no reply code of a failure"),
        ("- {class: spam, code: many}", "rule 1: code: Input should be a valid integer"),
        ("- {class: spam, txt: x}", "there is no key txt; known are class, status, code, text"),
        ("- {text: x}", "rule 1: class: Field required"),
        ("# rules\n- class: spam: ham", "line 2: is not YAML: mapping values are not allowed"),
        ("- {class: spam, text: \xff}", "is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as error:
        Classifier(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error_of_the_configuration(site: Site) -> None:
    with pytest.raises(ValueError, match="no such file"):
        site.config(rules="missing.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        Classifier(site.folder)


# What next hops say while the gateway delivers.


@pytest.mark.parametrize(
    ("outcome", "failure", "kind"),
    [
        (refusal(550, "5.1.1", "User unknown"), "no-such-user", "hard"),
        (refusal(451, "4.7.1", "Greylisted"), "policy", "soft"),
        (refusal(452, "4.2.2", "Over quota"), "mailbox-full", "soft"),
        (Outcome(Disposition.DEFERRED, 0, "4.4.1", "no answer", "connect"), "network", "soft"),
        (Outcome(Disposition.DEFERRED, 0, "4.0.0", "Oops", "tls"), "network", "soft"),
        (Outcome(Disposition.FAILED, 0, "5.1.2", "no", "route"), "no-such-domain", "hard"),
        (refusal(550, "5.0.0", "Sorry"), "other", "soft"),
    ],
)  # fmt: skip
def test_what_a_next_hop_says_is_noted_on_the_recipient(
    site: Site, outcome: Outcome, failure: str, kind: str
) -> None:
    ended = attempt(outcome, {"segment": "a"})
    site.plugin().reply(ended)
    assert ended.recipient.notes == {
        "segment": "a",
        "source": "reply",
        "class": failure,
        "kind": kind,
    }


def test_what_is_delivered_in_the_end_has_no_class(site: Site) -> None:
    plugin = site.plugin()
    delivered = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
    notes = {"segment": "a", "source": "reply", "class": "policy", "kind": "soft"}
    ended = attempt(delivered, notes)
    plugin.reply(ended)
    assert ended.recipient.notes == {"segment": "a"}


def test_notes_of_others_stay(site: Site) -> None:
    ended = attempt(Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot"), {"source": "crm"})
    site.plugin().reply(ended)
    assert ended.recipient.notes == {"source": "crm"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
