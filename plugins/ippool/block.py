"""Replies by which a receiver says that it takes nothing from a source. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.hooks import Disposition, Outcome

_LOOKED_AT = 1_000
"""Characters of a reply that are compared: what is said first is what counts."""


@dataclass(frozen=True, slots=True)
class BlockRule:
    """What a reply must be so that it counts; what is None or empty may be anything.

    Attributes:
        text: found in the reply's text.
        code: the reply code, or its first digits: `550`, `55`, `5`.
        status: the enhanced status code, or its first parts: `5.7.1`, `5.7`.
        stages: what was answered: `connect`, `ehlo`, `mail`, `rcpt`, `data`, `dot`.
        providers: who said it.
        seconds: how long the source is suspended at first; None: as usual; 0: this is no block.
        after: how many messages must be refused like this within an hour.
    """

    text: re.Pattern[str] | None = None
    code: str = ""
    status: str = ""
    stages: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    seconds: float | None = None
    after: int = 1

    def fits(self, outcome: Outcome, provider: str) -> bool:
        """Whether a provider's refusal is one of these."""
        return (
            (not self.providers or provider in self.providers)
            and str(outcome.code).startswith(self.code)
            and (not self.status or f"{outcome.status}.".startswith(f"{self.status}."))
            and (not self.stages or outcome.stage in self.stages)
            and (self.text is None or self.text.search(outcome.text, 0, _LOOKED_AT) is not None)
        )


class Blocks:
    """The rules of a configuration, in the order in which they are asked."""

    def __init__(self, rules: Iterable[BlockRule]) -> None:
        self._rules = tuple(rules)

    def find(self, outcome: Outcome, provider: str) -> BlockRule | None:
        """The rule that says that the source is blocked; None: it is not."""
        if outcome.disposition is Disposition.DELIVERED or not outcome.code:
            return None
        for rule in self._rules:
            if rule.fits(outcome, provider):
                return None if rule.seconds == 0 else rule
        return None


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_SENDER = (
    r"\b(?:your|the|sending|sender'?s|client|connecting|source|mail|this) "
    r"(?:server |client |mail ?server |smtp |host |ip )?"
    r"(?:ip|ips|ip address|address|host|server|mta|mail ?server)\b"
)
_BLOCKED = (
    r"\b(?:block(?:ed|list(?:ed)?)|black-?list(?:ed)?|deny-?list(?:ed)?|banned|"
    r"(?:bad|poor|low) reputation)\b"
)

SHIPPED: tuple[BlockRule, ...] = (
    # About a domain or a link in the message: another source would hear the same.
    BlockRule(
        _words(
            r"dbl\.spamhaus\.org",
            r"\b(?:surbl|uribl|dbl|rhsbl)\b",
            r"(?:helo command|sender address|recipient address)[^;]{0,200}\bblocked using\b",
            r"low reputation of the sending domain",
        ),
        seconds=0,
    ),
    # Greylisting is over before long, and another source would begin it anew.
    BlockRule(_words(r"\bgr[ae]y-? ?list"), seconds=0),
    # Lists in the DNS, as the servers that ask them tell it.
    BlockRule(
        _words(
            r"client host \S{1,60} blocked using\b",
            r"blocked using spamhaus",
            r"\b(?:zen|sbl|xbl|pbl|sbl-xbl)\.spamhaus\.org",
            r"spamhaus\.org/(?:query|sbl|css|xbl|pbl)\b",
            r"\b(?:ip|ip address) is (?:in|on|listed (?:in|on|by)) spamhaus",
            r"check\.spamhaus\.org",
            r"bl\.spamcop\.net",
            r"dnsbl\S{0,20}\.sorbs\.net",
            r"uceprotect",
        ),
    ),
    # Filters that many receivers use.
    BlockRule(
        _words(
            r"ipcheck\.proofpoint\.com",
            r"proofpoint dynamic reputation",
            r"barracuda(?:central\.org| reputation|networks\.com/reputation)",
            r"csi\.cloudmark\.com",
            r"sending mta'?s poor reputation",
            r"(?:senderbase\.org|talosintelligence\.com)",
            r"ers\.trendmicro\.com",
            r"ipremoval\.sms\.symantec\.com",
            r"\babusix\b",
        ),
    ),
    # 421-4.7.0, 421-4.7.28, 550-5.7.1: support.google.com/a/answer/3726730
    BlockRule(
        _words(
            r"unusual rate of unsolicited mail originating from your ip",
            r"unsolicited(?:ratelimit|ip)error",
            r"very low reputation of the sending ip",
            r"ip you'?re using to send mail is not authorized",
            r"ip address sending this message does not have a ptr record",
        ),
        providers=frozenset({"gmail"}),
    ),
    # The message alone may be the reason, so it takes several.
    BlockRule(
        _words(r"likely unsolicited mail", r"unsolicitedmessageerror"),
        code="5",
        providers=frozenset({"gmail"}),
        after=5,
    ),
    # substrate.office.com/ip-domain-management-snds/ErrorCodes; learn.microsoft.com: non-delivery
    # reports in Exchange Online
    BlockRule(
        _words(
            r"\(a?s31[45]0\)",
            r"part of their network is on our block ?list",
            r"banned (?:sending ip|sender)\b",
            r"temporarily rate limited due to ip reputation",
            r"\b(?:sc-00[1-4]|dy-00[12]|ou-00[12])\b",
        ),
        providers=frozenset({"microsoft"}),
    ),
    # senders.yahooinc.com/smtp-error-codes
    BlockRule(
        _words(
            r"\[(?:tss?\d\d|bl\d\d|ipts\d\d)\]",
            r"deferred due to (?:unexpected volume or )?user complaints",
            r"will be permanently deferred",
        ),
        providers=frozenset({"yahoo"}),
    ),
    # A cautious guess: Yahoo! JAPAN publishes no list, and its software has the same roots.
    BlockRule(
        _words(r"\[(?:tss?\d\d|bl\d\d)\]", r"deferred - 4\.16\.\d\d"),
        providers=frozenset({"yahoo_japan"}),
    ),
    # Receivers that speak of the address in words of their own.
    BlockRule(
        _words(
            r"tobr@rx\.t-online\.de",
            r"postmaster\.(?:gmx\.net|web\.de|mail\.com|1und1\.de)\S{0,80}[?&;]ip=",
            r"abuse_rbl@abuse-att\.net",
            r"comcast block for spam",
            r"postmaster\.comcast\.net/smtp-error-codes\.php#bl",
            r"unblock\.request@cox\.net",
            r"\bofr_?50[36]\b",
        ),
    ),
    # Any other receiver, and the Japanese carriers: docomo and SoftBank publish no text of their
    # own for a block, and au resets the connection (au.com/mobile/service/attention/specification).
    # Such words may be about something else, so it takes several messages.
    BlockRule(
        _words(
            rf"{_SENDER}.{{0,60}}?{_BLOCKED}",
            rf"{_BLOCKED}.{{0,30}}?\bip(?: address)?\b",
            r"client host rejected\b",
            r"\bip\b ?[=:]? ?\[?[0-9a-f.:]{7,45}\]?.{0,40}?(?:reputation|block|black)",
            r"(?:not accept|refus|reject)\w{0,4} (?:any )?(?:mail|messages|connections?) from your "
            r"(?:ip|server|network|host)",
        ),
        after=3,
    ),
    # RFC 7504, and its like: a host that takes no mail at all.
    BlockRule(
        _words(r"no smtp service", r"not accept (?:any )?mail"),
        stages=frozenset({"connect"}),
        seconds=0,
    ),
    BlockRule(code="521", stages=frozenset({"connect"}), seconds=0),
    # Who refuses before any sender or recipient was named means the source.
    BlockRule(code="5", stages=frozenset({"connect", "ehlo"}), after=3),
)
"""What receivers are known to say, without configuration."""
