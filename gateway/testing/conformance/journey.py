"""One message on its way through a chain, as SMTP would take it there, and on to its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.hooks.actions import Discard, Quarantine, Reject, Tempfail
from gateway.hooks.division import Copy
from gateway.mail.guard import OPEN
from gateway.mail.message import Client, Message, Recipient
from gateway.smtp.content import received_field
from gateway.testing.conformance.candidate import HOSTNAME
from gateway.testing.conformance.site import Instance
from gateway.testing.corpus import Sample

ROUTE = Route((Hop("192.0.2.25"),), "mx.example.net")
SOURCE = Source(None, HOSTNAME)


@dataclass(slots=True, eq=False)
class Journey:
    """What became of one message.

    Attributes:
        content: as the first plugin got it, with the gateway's own trace field.
        sender, recipients: as the client said them.
        answers: what the hooks answered that was not None, in order.
        copies: what would be queued.
        gone: recipients that were refused, discarded or claimed, as the client said them.
        claimed: how many of them were claimed.
    """

    content: bytes
    sender: str
    recipients: tuple[str, ...]
    answers: list[object] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    claimed: int = 0

    @property
    def accepted(self) -> bool:
        """Whether anything would be queued, or was for the plugin itself."""
        return bool(self.copies or self.claimed)


def client() -> Client:
    """Who brings the mail."""
    return Client("192.0.2.10", 40000, "192.0.2.1:25", "client.example.com", True)


async def send(
    instance: Instance, sample: Sample, queue_id: str, now: float, comes_from: Client | None = None
) -> Journey:
    """Takes a message through the hooks from `connect` to `seal`.

    Args:
        instance: the plugin in its chain.
        sample: the message.
        queue_id: what the client would be told.
        now: seconds since the epoch, for the trace field.
        comes_from: who brings it; None: the usual client.
    """
    chain = instance.chain
    who = comes_from or client()
    only = sample.recipients[0] if len(sample.recipients) == 1 else None
    content = received_field(who, HOSTNAME, queue_id, only, now) + sample.content
    journey = Journey(content, sample.sender, sample.recipients)
    if _refused(journey, await chain.connect(who)) or _refused(journey, await chain.helo(who)):
        return journey
    message = Message(queue_id, sample.sender, who)
    message.smtputf8 = sample.smtputf8
    answer = await chain.mail(message)
    if _refused(journey, answer):
        return journey
    claimed: dict[str, list[Recipient]] = {}
    for address in sample.recipients:
        await _take(instance, journey, message, address, claimed)
    # As the gateway does: the hooks until now could change no more than their stage allows.
    message.guard.rights = OPEN
    message.receive(content)
    campaign = message.headers.get("X-Campaign")
    if campaign:
        message.notes["campaign"] = campaign
    copies = [message.copy(recipients) for recipients in claimed.values()]
    if message.recipients:
        filtered = await chain.message(message)
        if isinstance(filtered, Reject | Tempfail):
            journey.answers.append(filtered)
            journey.gone += [recipient.address for recipient in message.recipients]
        else:
            journey.copies = [] if isinstance(answer, Discard) else filtered.copies
            journey.gone += [recipient.address for recipient, _ in filtered.discarded]
            journey.answers += [Discard(reason) for _, reason in filtered.discarded]
            journey.answers += [Quarantine(one.held) for one in filtered.copies if one.held]
    for plugin, copy in zip(claimed, copies, strict=True):
        journey.answers.append(await chain.receive(plugin, copy))
    return journey


def _refused(journey: Journey, answer: object) -> bool:
    if answer is not None:
        journey.answers.append(answer)
    if isinstance(answer, Reject | Tempfail):
        journey.gone += journey.recipients
        return True
    return False


async def _take(
    instance: Instance,
    journey: Journey,
    message: Message,
    address: str,
    claimed: dict[str, list[Recipient]],
) -> None:
    chain = instance.chain
    recipient = Recipient(address)
    recipient.join(message.guard, message)
    plugin = chain.claim(recipient)
    if isinstance(plugin, str):
        claimed.setdefault(plugin, []).append(recipient)
        journey.gone.append(address)
        journey.claimed += 1
        return
    answer = plugin or await chain.rcpt(recipient)
    if answer is not None:
        journey.answers.append(answer)
    if isinstance(answer, Reject | Tempfail | Discard):
        journey.gone.append(address)
    else:
        message.take(recipient)


def deliveries(copy: Copy, now: float) -> list[Delivery]:
    """What would be attempted of a copy: one delivery for each domain."""
    message = copy.message
    by_domain: dict[str, list[Recipient]] = {}
    for recipient in message.recipients:
        by_domain.setdefault(recipient.domain, []).append(recipient)
    return [
        Delivery(
            message.id,
            message.sender,
            recipients,
            message.client,
            message.stream,
            now,
            0,
            message.content,
            dict(message.notes),
            message.smtputf8,
            lane=domain,
        )
        for domain, recipients in by_domain.items()
    ]


async def attempt(instance: Instance, delivery: Delivery, outcome: Outcome) -> list[object]:
    """Takes a delivery through `route`, `source`, `admit` and `reply`; gives the answers."""
    chain = instance.chain
    delivery.close()
    route = await chain.route(delivery)
    delivery.proceed(route=route if isinstance(route, Route) else ROUTE)
    source = chain.source(delivery)
    delivery.proceed(source=source if isinstance(source, Source) else SOURCE)
    answers: list[object] = [route, source, chain.admit(delivery)]
    for recipient in delivery.recipients:
        end = Attempt(delivery, recipient, delivery.route, delivery.source, outcome)
        answers.append(chain.reply(end))
    return answers


def outcomes() -> Sequence[Outcome]:
    """How attempts end, mostly."""
    relay = "mx.example.net[192.0.2.25]:25"
    return (
        Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok: queued", "dot", relay),
        Outcome(Disposition.DEFERRED, 451, "4.7.1", "Greylisted, come again", "rcpt", relay),
        Outcome(Disposition.FAILED, 550, "5.1.1", "No such user here", "rcpt", relay),
    )
