"""What becomes of a message that came back: events, or a person has to look at it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.hooks import Event
from plugins.bounces.classification import Classifier, FailureClass
from plugins.bounces.config import BouncesConfig
from plugins.bounces.delivery_status import Action, Finding, address_in, one_line
from plugins.bounces.feedback import Feedback
from plugins.bounces.report import Kind, Report
from plugins.bounces.return_path import ReturnPath, ReturnPaths

_LONGEST_REASON = 500
_LONGEST_CAMPAIGN = 200
_TYPES = {Action.FAILED: "bounced", Action.DELAYED: "deferred"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a message that came back. Exactly one of the three is not empty.

    Attributes:
        events: what is told to observers.
        held: why a person has to look at it.
        dropped: why it means nothing.
    """

    events: tuple[Event, ...] = ()
    held: str = ""
    dropped: str = ""


class Decider:
    """Decides by what a report says, and by the return path that it came to.

    Args:
        config: what is done with complaints, and what campaigns are named by.
        paths: knows our return paths; None if there are none.
        origin: the sender's domain and the stream of a hash in a return path.
        classifier: tells why mail did not arrive.
    """

    def __init__(
        self,
        config: BouncesConfig,
        paths: ReturnPaths | None,
        origin: Callable[[str], tuple[str, str]],
        classifier: Classifier,
    ) -> None:
        self._config = config
        self._paths = paths
        self._origin = origin
        self._classifier = classifier

    def decide(self, report: Report, recipients: Sequence[str], now: float) -> Decision:
        """What becomes of a message that came to some addresses of ours."""
        own = [] if self._paths is None else [*filter(None, map(self._paths.read, recipients))]
        paths = own or self._found(report)
        if report.kind is Kind.OTHER:
            return Decision(held="no report and no automatic reply: a person has to read it")
        if report.feedback is not None:
            return self._feedback(report, report.feedback, paths, now)
        if report.kind is Kind.DELIVERY:
            if not own and report.of_report:
                return Decision(dropped="it is the bounce of a bounce")
            if not paths:
                return Decision(held="a delivery report that names no return path of ours")
            events = [event for path in paths for event in self._deliveries(report, path, now)]
            return Decision(tuple(events))
        if not own:
            return Decision(held=f"{report.kind} that answers no message of ours")
        notes = {"auto": "reply" if report.kind is Kind.AUTOMATIC else "receipt"}
        return Decision(
            tuple([self._event("replied", self._about(path, report), now, notes) for path in own])
        )

    def failure(self, finding: Finding, report: Report) -> FailureClass:
        """Why mail did not arrive: by what a server said, otherwise by the whole letter."""
        verdict = self._classifier.verdict(finding.code, finding.status, finding.said)
        if verdict.failure is FailureClass.OTHER and report.said:
            verdict = self._classifier.verdict(finding.code, finding.status, report.said)
        return verdict.failure

    def _found(self, report: Report) -> list[ReturnPath]:
        """The return path that stands somewhere in a report; what was signed here is ours."""
        found = None if self._paths is None else self._paths.find(report.texts())
        return [] if found is None else [found]

    def _feedback(
        self, report: Report, given: Feedback, paths: Sequence[ReturnPath], now: float
    ) -> Decision:
        notes = {"source": "arf", "feedback": given.type}
        if not given.is_complaint:
            notes["auto"] = given.type
        kind = "complained" if given.is_complaint else "replied"
        abouts = [self._about(path, report) for path in paths]
        if not paths and self._config.unsigned_complaints == "accept":
            named = given.sure or given.likely[:1]
            abouts = [self._unsigned(address, report) for address in named]
        if not abouts:
            return Decision(held="a complaint that names no return path of ours")
        events = [self._event(kind, about, now, notes) for about in abouts]
        return Decision(tuple([replace(event, reason=given.type) for event in events]))

    def _deliveries(self, report: Report, path: ReturnPath, now: float) -> Iterator[Event]:
        """The events of a delivery report for one return path: one for each action."""
        about = self._about(path, report)
        told: set[Action] = set()
        for finding in self._findings(path, report.findings):
            if finding.action in told:
                continue
            told.add(finding.action)
            notes = {"source": "dsn"}
            said = finding.said
            if finding.action in _TYPES:
                failure = self.failure(finding, report)
                notes |= {"class": failure.value, "kind": failure.kind}
                said = said or report.said
            else:
                notes["action"] = finding.action.value
            if finding.recipient and not self._names(path, finding.recipient):
                notes["final"] = finding.recipient
            yield replace(
                self._event(_TYPES.get(finding.action, "delivered"), about, now, notes),
                reason=one_line(said, _LONGEST_REASON),
                code=finding.code,
                status=finding.status,
            )

    def _findings(self, path: ReturnPath, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Those about the recipient itself; all, if it was forwarded and none is."""
        about = [
            one
            for one in findings
            if (one.original and self._names(path, one.original))
            or (one.recipient and self._names(path, one.recipient))
        ]
        return about or findings

    def _names(self, path: ReturnPath, address: str) -> bool:
        return self._paths is not None and self._paths.names(path, address)

    # The event.

    def _about(self, path: ReturnPath, report: Report) -> Event:
        """What every event about a return path has in common."""
        domain, stream = self._origin(path.token.origin)
        domain = domain or self._config.sender_domain_of(path.domain)
        return replace(
            self._unsigned(self._recipient(path, report), report),
            message_id=path.token.message_id,
            sender=_sender(report, domain),
            stream=stream,
        )

    def _unsigned(self, recipient: str, report: Report) -> Event:
        """What an event has where no return path tells more."""
        name = self._config.campaign_header
        campaign = one_line(report.returned.get(name, "") if name else "", _LONGEST_CAMPAIGN)
        return Event(
            type="",
            time=0.0,
            message_id="",
            sender=_sender(report, ""),
            recipient=recipient,
            reason=one_line(report.said, _LONGEST_REASON),
            relay=report.reporter,
            notes={"campaign": campaign} if campaign else {},
        )

    def _recipient(self, path: ReturnPath, report: Report) -> str:
        """Whom the message went to; '' if the token has only a hash, and nothing fits it."""
        if path.token.recipient:
            return path.token.recipient
        tried = dict.fromkeys(report.candidates())
        return next((address for address in tried if self._names(path, address)), "")

    def _event(self, kind: str, about: Event, now: float, notes: Mapping[str, str]) -> Event:
        return replace(about, type=kind, time=now, notes={**notes, **about.notes})


def _sender(report: Report, domain: str) -> str:
    """The author of the returned message, if it is of the sender's domain; `@` and that, if not."""
    author = address_in(report.returned.get("From", "")[:1000])
    if not domain or author.rpartition("@")[2].lower() == domain:
        return author
    return f"@{domain}"
