"""Bounces that are written for people: whom they name, and what they say of it. Pure.

There is no standard for them, but only so many ways to write one. A letter names a recipient at the
beginning of a line, or behind a few words; what follows is about that one; and what a server said
begins with its reply code. All of that ends where the returned message begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.hooks import Headers
from plugins.bounces.delivery_status import (
    Action,
    Finding,
    addresses_in,
    code_in,
    one_line,
    status_in,
)
from plugins.bounces.mime import split

LONGEST_LETTER = 32_768
"""Characters of a letter that are looked at."""
LONGEST_LINE = 1000
MOST_LINES = 600
_MOST_RECIPIENTS = 50
_LONGEST_SAID = 1000

# Where the returned message begins: behind a rule, in words, or with a field of its header.
_RULE = ("--", "==", "**", "__", "##", "++", "..", "- ")
_BEHIND_RULE = re.compile(
    r"original|returned|undelivered|unsent|rejected message|failed message|copy of|below|headers?\b"
    r"|your message|message (?:body|text|follows)|元の|原文|オリジナル",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(
    r"(?:below|here|this|the following|attached)(?: this line)?(?: text)? (?:is|are)"
    r" (?:a copy|the (?:first|original|header|beginning)|your)"
    r"|(?:the |your )?(?:original|returned|unsent|undelivered) (?:message|mail|e-?mail)"
    r"(?: headers?| text| body)?(?: follows?| below| attached)?[ .:-]{0,20}$",
    re.IGNORECASE,
)
_FIRST_FIELD = re.compile(
    r"[> ]*(?:return-path|received|x-originating-ip|dkim-signature|delivered-to|message-id): ?\S"
    r"|reporting-mta: ?\S",
    re.IGNORECASE,
)
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,40}: ?\S")

_ADDRESS = r"(?:\"[^\"\\@\n]{1,64}\"|[^\s<>()\[\]:;,\"@]{1,64})@[^\s<>()\[\]:;,\"@/]{1,254}"
_BRACKETED = re.compile(
    rf"(?:\d{{1,3}}[ \t])?(?:[45]\d\d[ -](?:[45]\.\d{{1,3}}\.\d{{1,3}} )?)?"
    rf"[<\"'](?:smtp:|mailto:)?({_ADDRESS})[>\"'](?![ \t]+(?:wrote|said))",
    re.IGNORECASE,
)
_BARE = re.compile(rf"({_ADDRESS})(?=$|[ \t]*[:;,(\[]|\.\.\.|[ \t]+(?:on|-{{1,3}}) |[ \t]+[A-Z])")
_TOWARDS = re.compile(
    r"(?:deliver|sen[dt]|mail|message|reach|recipient|user|account|address|box)[^@<>]{0,60}?"
    rf"(?:\b(?:to|for|of|by|named|is|was)|[:=])[ \t]*[<\"'(\[]?(?:smtp:|mailto:)?({_ADDRESS})",
    re.IGNORECASE,
)
_COMMAND = re.compile(rf"(?:<<<|>>>)[^<@]{{0,60}}<({_ADDRESS})>")
_NAMING = re.compile(
    r"recipient|deliver(?:ed)? to|address|rcpt to|user|mailbox|failed"
    r"|宛先|あて先|受信者|送信先|アドレス",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"[ \t]*(?:rfc822;[ \t]*)?<?'?(?:smtp:)?({_ADDRESS})>?'?", re.IGNORECASE)
_WORD = re.compile(r"\w\w")
_REPLY = re.compile(r"(?<![\w.#/])[45]\d\d[ -](?=\S)|(?<![\w.])#?[45]\.\d{1,3}\.\d{1,3}(?![\w.])")
_OPENING = re.compile(
    r"(?:could|can|would|was|were|has|have|had|is|did|do)(?: ?n[o']t| not)(?: yet)?(?: been)?"
    r"(?: be| able to)?(?: successfully)? (?:deliver|sent|send|reach|accept|complete|process)"
    r"|cannot (?:be )?(?:deliver|sent|accept|process)|(?:could|was) n[o']t (?:deliver|reach)"
    r"|undeliver|not delivered|unable to (?:deliver|send|relay|complete|process)"
    r"|(?:fail(?:ed|ure|ing)?|error|problem|trouble)s?[\w ,]{0,40} (?:deliver|send|notice|to reach)"
    r"|deliver\w*(?: \w+){0,6} (?:fail|error|problem|delay|incomplete|unsuccess|impossible|was not"
    r"|not possible|cancel|abort)|returned (?:mail|to sender|message)|(?:mail|message)(?: \w+){0,3}"
    r" (?:returned|bounced|rejected|refused|blocked|delayed)|non.?delivery|permanent error"
    r"|fatal errors?|transcript of (?:the )?session|not (?:been )?able to be"
    r"|incorrectly constructed|no valid recipients|given up|giving up"
    r"|following (?:\w+ )?(?:recipient|address|user|destination)"
    r"|(?:was|were|been) (?:rejected|refused|returned|delayed)|mailbox (?:is )?full|user unknown"
    r"|(?:配信|送信|配達|配送|お届け|届ける(?:こと)?|送る(?:こと)?)(?:が|は|を|も)?"
    r".{0,6}(?:できま|できな|出来ま|出来な|失敗|不能|遅れ|エラー)"
    r"|不達|返送|届きません|エラー(?:の|に|が|メール|通知)|存在しません"
    r"|nicht zugestellt|unzustellbar|pas pu (?:être|etre)|no (?:se )?(?:ha )?(?:podido|pudo)"
    r"|не (?:может|удалось|доставлен)|退信|无法(?:送达|投递|发送)|未能",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    r"(?:has|have|was|been|is|being|been temporarily) delayed|not (?:yet )?(?:been )?delivered"
    r"(?: yet| to date)|delivery (?:is|has been|incomplete|delayed)? ?(?:delayed|incomplete)"
    r"|(?:still|keep|continue|continuing)(?: \w+){0,3} (?:try|retry|attempt|deliver)"
    r"|(?:will|would) (?:be )?(?:retr|continue to|keep)|warning message only|this is a warning"
    r"|(?:not|no) (?:need to|action).{0,30}(?:resend|required|do anything)|not given up"
    r"|配送が遅れ|遅延|配送を続け|再送を(?:試み|続け|行い)",
    re.IGNORECASE,
)
_ENDED = re.compile(
    r"given up|giving up|has failed|could not be delivered|couldn't be delivered|permanent|returned"
    r" to sender|undeliverable|cannot be delivered|delivery failed|no further|will not be retried",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter, and the message that it returns.

    Attributes:
        text: what it says, above the returned message.
        returned: the header of the returned message, as far as it is there.
    """

    text: str
    returned: Headers

    @property
    def tells_of_failure(self) -> bool:
        """Whether it says that mail was not delivered, or not yet."""
        return _OPENING.search(_flat(self.text)) is not None

    @property
    def action(self) -> Action:
        """Whether mail is given up or late."""
        text = _flat(self.text)
        late = _DELAYED.search(text) is not None and _ENDED.search(text) is None
        return Action.DELAYED if late else Action.FAILED


def _flat(text: str) -> str:
    return " ".join(text.replace("’", "'").split())


def read(text: str) -> Letter:
    """Reads a letter; lines end in LF."""
    lines = _lines(text[:LONGEST_LETTER])
    for number, line in enumerate(lines):
        if _begins_returned(line) and any(map(str.strip, lines[:number])):
            return Letter("\n".join(lines[:number]), _header(lines[number:]))
    return Letter("\n".join(lines), Headers())


def _begins_returned(line: str) -> bool:
    if _FIRST_FIELD.match(line) and line[:1] != " ":
        return True
    line = line.strip(" \t>")
    if line.startswith(_RULE):
        words = line.strip("-=*_#+. ")
        return len(words) < 120 and _BEHIND_RULE.search(words) is not None
    return _IN_WORDS.match(line) is not None


def _header(lines: list[str]) -> Headers:
    """The header of the message that begins somewhere in these lines."""
    unquoted = [line.lstrip("> ") if line.startswith(">") else line for line in lines]
    for number, line in enumerate(unquoted):
        if _FIELD.match(line):
            header = "\r\n".join([*unquoted[number:], ""])
            return split(header.encode("utf-8", "replace"))[0]
    return Headers()


def findings(letter: Letter, named: str = "") -> list[Finding]:
    """What a letter says about each recipient that it names.

    Args:
        letter: the letter.
        named: addresses that are known to be recipients, as in X-Failed-Recipients.
    """
    action = letter.action
    found = {address.lower(): (address, said) for address, said in _sections(letter.text)}
    if not found and not named:
        match = _TOWARDS.search(_flat(letter.text))
        if match is not None:
            found[""] = match[1].strip("'."), reply_in(letter.text)
    known = {address.lower(): (address, "") for address in addresses_in(named[:LONGEST_LINE])}
    if known:
        found = {address: found.get(address, nothing) for address, nothing in known.items()}
    return [
        Finding(action, address, "", status_in(said), code_in(said), said)
        for address, said in list(found.values())[:_MOST_RECIPIENTS]
    ]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The recipients that a letter names, each with what it says of it."""
    sections: dict[str, tuple[str, list[str]]] = {}
    current: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        address, rest = _recipient(line.lstrip("> *-"))
        if address:
            current = sections.setdefault(address.lower(), (address, []))[1]
            current.append(line if _REPLY.search(line) else rest.strip(" :\t"))
        elif current is not None:
            current.append(line)
    for address, section in sections.values():
        yield address, _said(section)


def _recipient(line: str) -> tuple[str, str]:
    """The recipient that a line names, and what follows; '' if it names none."""
    if "@" not in line:
        return "", ""
    match = _BRACKETED.match(line) or _BARE.match(line) or _COMMAND.match(line)
    if match is None:
        colon = re.search("[:：=]", line[:120])
        if colon is None or not _NAMING.search(line[: colon.start()]):
            return "", ""
        match = _NAMED.match(line, colon.end())
        if match is None:
            return "", ""
    return match[1].strip("'."), line[match.end() :]


def _lines(text: str) -> list[str]:
    return [line[:LONGEST_LINE] for line in text.split("\n")[:MOST_LINES]]


def _said(lines: list[str]) -> str:
    """What a server said, by its reply code; otherwise the first paragraph."""
    for number, line in enumerate(lines):
        if _REPLY.search(line):
            return one_line(" ".join(_paragraph(lines[number:])), _LONGEST_SAID)
    said: list[str] = []
    for number, line in enumerate(lines):
        if _WORD.search(line) and (not said or said[-1].endswith((":", "："))):
            said += _paragraph(lines[number:])
    return one_line(" ".join(said), _LONGEST_SAID)


def _paragraph(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if not line or (number and line.startswith((">>>", "<<<", "-----"))):
            return
        yield line.removeprefix("<<<").strip()


def reply_in(text: str) -> str:
    """What a server said somewhere in a text, by its reply code; '' if nothing looks like it."""
    lines = [line.strip() for line in _lines(text)]
    if not any(_REPLY.search(line) for line in lines):
        return ""
    return _said(lines)
