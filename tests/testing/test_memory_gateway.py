"""A gateway in memory: what it does is what a running one does, and what authors see of it."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel, ConfigDict

from gateway.configuration.yaml_document import ConfigError
from gateway.hooks import (
    Accept,
    Attempt,
    Client,
    Context,
    Delay,
    Delivery,
    Discard,
    Event,
    Hop,
    Login,
    Message,
    NoSuchDomainError,
    Outcome,
    Plugin,
    Quarantine,
    Recipient,
    Reject,
    Route,
    Source,
    hookimpl,
)
from gateway.hooks.lifecycle import PluginStartError
from gateway.testing import Clock, FakeDns, MemoryGateway, mail, message

Make = Callable[..., MemoryGateway]


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = "Example Inc."


class Footer(Plugin[Config]):
    @hookimpl
    def message(self, message: Message) -> None:
        for part in message.text_parts("text/plain"):
            part.text += f"\n-- \n{self.config.text}\n"


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes gateways that are closed in the end."""
    made: list[MemoryGateway] = []

    def one(*plugins: Any, **options: Any) -> MemoryGateway:
        made.append(MemoryGateway(*plugins, **options))
        return made[-1]

    yield one
    for gateway in made:
        gateway.close()


# How plugins are given.


def test_a_test_of_a_plugin_is_short(make: Make) -> None:
    result = make(Footer(Config(text="Example Inc."))).send(mail("Hello"))
    assert result.message.text == "Hello\n\n-- \nExample Inc.\n"
    result.changes.only("text/plain")


@pytest.mark.parametrize(
    "given",
    [
        Footer(Config()),
        Footer,
        (Footer, Config()),
        (Footer, {"text": "Example Inc."}),
        (Footer(Config()), {"on_error": "skip", "when": {"sender": "*@example.com"}}),
    ],
)
def test_a_plugin_is_given_in_many_ways(make: Make, given: Any) -> None:
    gateway = make(given)
    assert isinstance(gateway.plugins["footer"], Footer)
    assert gateway.send().message.text == "Hello\n\n-- \nExample Inc.\n"


def test_an_instance_that_is_given_is_the_one_that_runs(make: Make) -> None:
    footer = Footer(Config())
    gateway = make(footer)
    assert gateway.plugins["footer"] is footer


def test_all_of_gateway_yaml_as_text(make: Make, tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "from pydantic import BaseModel\nfrom gateway.hooks import Plugin, hookimpl\n"
        "class C(BaseModel):\n    word: str\n"
        "class Shout(Plugin[C]):\n    @hookimpl\n    def message(self, message):\n"
        "        message.headers.add('X-Word', self.config.word)\n"
    )
    text = "hostname: mx.example.com\nplugins:\n  - ./shout.py: {word: hey}\n"
    gateway = make(config=text, base=tmp_path)
    queued = gateway.send().message
    assert queued.headers.get("X-Word") == "hey"
    assert queued.changes.what == {"header:X-Word"}
    assert b"by mx.example.com with ESMTP" in queued.content


def test_an_installed_plugin_by_its_name(make: Make) -> None:
    gateway = make(("suppression", {}), Footer)
    assert list(gateway.plugins) == ["suppression", "footer"]


def test_plugins_are_not_given_twice_over() -> None:
    with pytest.raises(ValueError, match="as arguments or in the text, not both"):
        MemoryGateway(Footer, config="plugins: []")


def test_a_condition_of_an_entry_counts(make: Make) -> None:
    gateway = make((Footer(Config()), {"when": {"recipient_domain": "example.net"}}))
    result = gateway.send(to=["a@example.net", "b@example.org"])
    assert {one.recipients[0]: bool(one.changes) for one in result.messages} == {
        "a@example.net": True,
        "b@example.org": False,
    }


def test_what_is_wrong_is_said_as_gateway_check_says_it() -> None:
    with pytest.raises(ConfigError, match=r'texd: unknown key; did you mean "text"\?'):
        MemoryGateway((Footer, {"texd": "x"}))
    with pytest.raises(ConfigError, match=r"gateway.yaml:2: .*hostnam.*: unknown key"):
        MemoryGateway(config="\nhostnam: x")
    with pytest.raises(TypeError, match="give a class and its configuration"):
        MemoryGateway((Footer(Config()), Config()))


def test_a_method_named_like_a_hook_without_its_mark_is_found() -> None:
    class Forgotten(Plugin[Config]):
        def message(self, message: Message) -> None:
            raise AssertionError

    with pytest.raises(ConfigError, match="named like a hook, but has no @hookimpl"):
        MemoryGateway(Forgotten(Config()))


# Sending.


class Gate(Plugin[Config]):
    """Answers by what the address says."""

    @hookimpl
    def connect(self, client: Client) -> Reject | None:
        return Reject("not you") if client.address == "192.0.2.1" else None

    @hookimpl
    def helo(self, client: Client) -> Reject | None:
        return Reject("not that name") if client.helo == "bad.example" else None

    @hookimpl
    def mail(self, message: Message) -> Reject | Discard | None:
        if message.sender == "nobody@example.com":
            return Reject("no such sender")
        return Discard("not wanted") if message.sender == "void@example.com" else None

    @hookimpl
    def rcpt(self, recipient: Recipient) -> Reject | Discard | None:
        if recipient.address.startswith("alias@"):
            recipient.address = "real@example.net"
        if recipient.address.startswith("gone@"):
            return Reject("gone", 551)
        return Discard("trap") if recipient.address.startswith("trap@") else None

    @hookimpl
    def message(self, message: Message) -> Quarantine | Delay | Reject | None:
        match message.headers.get("X-Do"):
            case "hold":
                return Quarantine("look at it")
            case "later":
                return Delay(60)
            case "no":
                return Reject("no such text")
        return None


@pytest.fixture
def gate(make: Make) -> MemoryGateway:
    """A gateway that answers in many ways."""
    return make(Gate)


@pytest.mark.parametrize(
    ("how", "reply"),
    [
        ({"client": "192.0.2.1"}, "554 5.7.1 not you"),
        ({"client": Client("127.0.0.1", helo="bad.example")}, "550 5.7.1 not that name"),
        ({"sender": "nobody@example.com"}, "550 5.7.1 no such sender"),
        ({"to": "gone@example.net"}, "551 5.7.1 gone"),
        ({"content": mail(headers={"X-Do": "no"})}, "550 5.7.1 no such text"),
        ({"content": b"Subject: x\n\nbare\n"}, "550 5.6.0 "),
    ],
)
def test_a_refusal_is_the_reply(gate: MemoryGateway, how: dict[str, Any], reply: str) -> None:
    result = gate.send(**how)
    assert result.reply.startswith(reply)
    assert not result.accepted
    assert result.messages == ()
    with pytest.raises(AssertionError, match=f"(?s)nothing was queued:\nC: .*S: {reply}"):
        _ = result.message


def test_recipients_are_answered_one_by_one(gate: MemoryGateway) -> None:
    result = gate.send(to=["a@example.net", "gone@example.net", "trap@example.net"])
    assert result.accepted
    assert {address: reply[:3] for address, reply in result.replies.items()} == {
        "a@example.net": "250",
        "gone@example.net": "551",
        "trap@example.net": "250",
    }
    assert result.message.recipients == ["a@example.net"]
    assert result.discarded == {"trap@example.net": "trap"}
    assert [(event.type, event.recipient) for event in result.events] == [
        ("discarded", "trap@example.net")
    ]
    result.changes.only()


def test_a_discarded_message_is_told_as_such(gate: MemoryGateway) -> None:
    result = gate.send(sender="void@example.com")
    assert result.accepted
    with pytest.raises(AssertionError, match=r"discarded:\n  recipient@example.net: not wanted"):
        _ = result.changes


def test_held_and_delayed_mail(gate: MemoryGateway) -> None:
    assert gate.send(mail(headers={"X-Do": "hold"})).message.held == "look at it"
    later = gate.send(mail(headers={"X-Do": "later"})).message
    assert (later.held, later.delay) == (None, 60)


def test_an_address_that_rcpt_changed_is_a_change(gate: MemoryGateway) -> None:
    result = gate.send(to=["alias@example.net", "b@example.net"])
    assert result.message.recipients == ["real@example.net", "b@example.net"]
    assert result.changes.what == {"recipients"}
    with pytest.raises(AssertionError, match=r"- alias@example.net\n. real@example.net"):
        result.changes.only()


def test_the_envelope_comes_from_the_header_or_from_a_message(make: Make) -> None:
    gateway = make()
    octets = mail(sender='"Shop" <shop@example.com>', to=["a@example.net", "B <b@example.org>"])
    queued = gateway.send(octets).message
    assert queued.sender == "shop@example.com"
    assert queued.recipients == ["a@example.net", "b@example.org"]
    client = Client("2001:db8::7", helo="other.example", user="shop", tls="TLSv1.3")
    given = message(sender="s@example.com", to="r@example.net", client=client)
    queued = gateway.send(given).message
    assert (queued.sender, queued.recipients) == ("s@example.com", ["r@example.net"])
    assert queued.message.client.address == "2001:db8::7"
    assert queued.message.client.helo == "other.example"
    assert queued.message.client.user == "shop"
    assert queued.message.client.tls == "TLSv1.3"
    assert gateway.send(sender="", to="r@example.net").message.sender == ""


def test_octets_arrive_as_they_are(make: Make) -> None:
    gateway = make()
    for octets in (b"", b"\r\n", b"A: b\r\n\r\n.\r\n..x\r\nno end", b"\r\n\xff\xfe\r\n"):
        queued = gateway.send(octets).message
        assert queued.content.endswith(octets)
        assert queued.before.content == queued.content
        assert not queued.changes


def test_parameters_of_mail_and_rcpt(make: Make) -> None:
    queued = make().send(mail_parameters="RET=HDRS", rcpt_parameters="NOTIFY=NEVER").message
    assert queued.message.ret == "HDRS"
    assert queued.message.recipients[0].notify == frozenset({"NEVER"})


def test_an_address_beyond_ascii_needs_no_parameter(make: Make) -> None:
    queued = make().send(to="用户@example.net").message
    assert queued.recipients == ["用户@example.net"]
    assert queued.message.smtputf8


class Doorman(Plugin[Config]):
    @hookimpl
    def auth(self, login: Login) -> Accept | Reject:
        return Accept() if login.password == "right" else Reject("wrong")


def test_a_login_is_asked_of_the_plugin(make: Make) -> None:
    gateway = make(Doorman)
    assert gateway.send(user="shop", password="wrong").reply == "535 5.7.1 wrong"
    assert gateway.send(user="shop", password="right").message.message.client.user == "shop"
    assert gateway.send().message.message.client.user is None


class Personal(Plugin[Config]):
    per_recipient = True

    @hookimpl
    def message(self, message: Message) -> Discard | None:
        (recipient,) = message.recipients
        if recipient.address.startswith("no@"):
            return Discard("nothing for you")
        if recipient.address.startswith("vip@"):
            message.headers.add("X-For", recipient.address)
        return None


def test_copies_have_changes_of_their_own(make: Make) -> None:
    to = ["a@example.net", "vip@example.net", "b@example.net", "no@example.net"]
    result = make(Personal).send(to=to)
    assert [one.recipients for one in result.messages] == [
        ["a@example.net", "b@example.net"],
        ["vip@example.net"],
    ]
    assert [one.changes.what for one in result.messages] == [set(), {"header:X-For"}]
    with pytest.raises(AssertionError) as failure:
        _ = result.message
    assert str(failure.value) == (
        "there are 2 copies; look at `messages`:\n  a@example.net, b@example.net\n  vip@example.net"
    )


class Rewriter(Plugin[Config]):
    @hookimpl
    def mail(self, message: Message) -> None:
        message.sender = "bounce@example.com"
        message.stream = "bulk"

    @hookimpl
    def message(self, message: Message) -> None:
        message.add_recipient("archive@example.net")
        message.notes["seen"] = "yes"

    @hookimpl
    def seal(self, message: Message) -> None:
        message.headers.prepend("X-Seal", "1")


def test_changes_of_all_stages_are_seen(make: Make) -> None:
    result = make(Rewriter, config="streams: {bulk: {when: {header: {X-Bulk: '*'}}}}").send()
    assert result.changes.what == {"sender", "stream", "recipients", "header:X-Seal"}
    assert result.message.notes == {"seen": "yes"}
    assert {hook for _, hook in result.timings} == {"mail", "message", "seal"}
    assert all(seconds >= 0 for seconds in result.timings.values())


def test_a_stream_that_the_configuration_chose_is_no_change(make: Make) -> None:
    gateway = make(config="streams: {bulk: {when: {header: {X-Bulk: '*'}}}}")
    queued = gateway.send(mail(headers={"X-Bulk": "1"})).message
    assert queued.stream == "bulk"
    assert not queued.changes


class Receiver(Plugin[Config]):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.received: list[bytes] = []

    @hookimpl
    def claim(self, recipient: Recipient) -> Accept | None:
        return Accept() if recipient.address.startswith("bounce-") else None

    @hookimpl
    def receive(self, message: Message) -> None:
        self.received.append(message.content)


def test_mail_for_the_gateway_itself(make: Make) -> None:
    receiver = Receiver(Config())
    result = make(receiver).send(to="bounce-1@gw.example.com")
    assert result.reply == "250 2.0.0 Ok"
    assert result.messages == ()
    assert len(receiver.received) == 1


# What plugins do wrong.


class Broken(Plugin[Config]):
    """Does at each hook what its text says."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tasks: list[asyncio.Task[None]] = []

    @hookimpl
    async def message(self, message: Message) -> Any:
        match self.config.text:
            case "raises":
                raise KeyError("customer")
            case "hangs":
                await asyncio.Event().wait()
            case "spins":
                while True:
                    pass
            case "sleeps":
                time.sleep(60)
            case "junk":
                return "250 Ok"
            case "leaks":
                self.tasks.append(asyncio.create_task(asyncio.sleep(60)))
            case "starts":
                self.tasks.append(asyncio.create_task(asyncio.sleep(0)))
            case "breaks":
                message.body = b"x" * 2000 + b"\r\n"
        return None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raises", "plugin broken failed in message: raised KeyError: 'customer'"),
        ("hangs", "plugin broken failed in message: ran longer than 0.2 s"),
        ("spins", "plugin broken failed in message: ran longer than 0.2 s"),
        ("sleeps", "plugin broken failed in message: ran longer than 0.2 s"),
        ("junk", "plugin broken failed in message: answered str, and may answer None, Reject"),
        ("leaks", "a task was left running: sleep "),
        ("breaks", "plugins made a message that cannot go out: "),
    ],
)
def test_what_a_plugin_does_wrong_fails_the_test_or_is_told(what: str, said: str) -> None:
    given = (Broken, {"text": what, "timeout": "200ms"})
    with MemoryGateway(given) as gateway:
        with pytest.raises(AssertionError) as failure:
            gateway.send()
        for task in gateway.plugins["broken"].tasks:  # type: ignore[attr-defined]
            task.cancel()
    assert said in str(failure.value)
    with MemoryGateway(given, may_fail=True) as gateway:
        result = gateway.send()
    assert said in str(result.faults[0])
    assert result.reply[:3] == ("250" if what == "leaks" else "451")
    if what == "raises":
        assert isinstance(failure.value.__cause__, KeyError)
        assert isinstance(result.faults[0].error, KeyError)
    if what in ("raises", "junk"):
        assert (result.faults[0].plugin, result.faults[0].hook) == ("broken", "message")


def test_a_task_that_ends_at_once_is_not_left_running(make: Make) -> None:
    assert make((Broken, {"text": "starts"})).send().accepted


class Background(Plugin[Config]):
    @hookimpl
    async def start(self, context: Context) -> None:
        self.task = asyncio.create_task(asyncio.sleep(3600))

    @hookimpl
    async def stop(self) -> None:
        if self.config.text == "raises":
            raise KeyError("stop")
        if self.config.text != "forgets":
            self.task.cancel()


def test_a_task_of_start_lives_until_stop() -> None:
    with MemoryGateway((Background, {})) as gateway:
        assert gateway.send().accepted


@pytest.mark.parametrize(
    ("text", "said"),
    [("forgets", "a task was left running: sleep"), ("raises", "plugin background failed in stop")],
)
def test_what_is_wrong_with_stop_is_told_at_the_end(text: str, said: str) -> None:
    gateway = MemoryGateway((Background, {"text": text}))
    with pytest.raises(AssertionError, match=said):
        gateway.close()
    gateway.close()  # once is enough
    assert not gateway.folder.exists()


def test_the_failure_of_the_test_itself_comes_first() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        MemoryGateway((Background, {"text": "forgets"})),
    ):
        _ = 1 / 0


def test_a_plugin_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    class Failing(Plugin[Config]):
        @hookimpl
        def start(self, context: Context) -> None:
            raise OSError("no database")

    with pytest.raises(PluginStartError, match="cannot start: OSError: no database"):
        MemoryGateway(Failing)


@pytest.fixture
def timer() -> Iterator[list[float]]:
    """Another user of the timer signal: when it was called."""
    calls: list[float] = []
    before = signal.getsignal(signal.SIGALRM)
    rest = signal.getitimer(signal.ITIMER_REAL)
    signal.signal(signal.SIGALRM, lambda *_: calls.append(time.monotonic()))
    yield calls
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *rest)


@pytest.mark.parametrize("remaining", [0, 1000])
def test_the_watchdog_gives_the_timer_back(timer: list[float], remaining: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, remaining)
    with MemoryGateway((Broken, {"text": "spins", "timeout": "100ms"}), may_fail=True) as gateway:
        assert gateway.send().reply.startswith("451")
    assert remaining * 0.9 <= signal.getitimer(signal.ITIMER_REAL)[0] <= remaining
    assert timer == []
    signal.raise_signal(signal.SIGALRM)
    assert len(timer) == 1


def test_another_user_of_the_timer_is_called_in_its_time(timer: list[float]) -> None:
    with MemoryGateway((Broken, {"text": "spins", "timeout": "1s"}), may_fail=True) as gateway:
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert gateway.send().reply.startswith("451")
    assert len(timer) == 1
    assert timer[0] - started >= 0.3
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_gateway_in_another_thread() -> None:
    def send() -> str:
        with MemoryGateway(Footer) as gateway:
            return gateway.send().reply

    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(send) for _ in range(2)]
    assert [reply.result()[:3] for reply in replies] == ["250", "250"]


def test_faults_are_seen_where_logging_is_off() -> None:
    logging.disable(logging.CRITICAL)
    try:
        with (
            MemoryGateway((Broken, {"text": "raises"})) as gateway,
            pytest.raises(AssertionError, match="plugin broken failed in message; logging"),
        ):
            gateway.send()
    finally:
        logging.disable(logging.NOTSET)


class Blocking(Plugin[Config]):
    blocking = True

    @hookimpl
    def start(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def message(self, message: Message) -> None:
        if self.config.text == "raises":
            raise KeyError("thread")
        message.headers.add("X-Thread", threading.current_thread().name)
        message.headers.add("X-Time", f"{self.context.clock():.0f}")


def test_a_plugin_that_blocks_runs_in_its_threads(make: Make) -> None:
    queued = make(Blocking).send().message
    assert "blocking" in queued.headers.get("X-Thread", "")
    assert queued.headers.get("X-Time") == "1780315200"
    gateway = make((Blocking, {"text": "raises"}), may_fail=True)
    assert isinstance(gateway.send().faults[0].error, KeyError)


async def test_it_says_where_it_cannot_be_used() -> None:
    with pytest.raises(RuntimeError, match="used without await"):
        MemoryGateway(Footer)


# Clock, DNS, files.


class Curious(Plugin[Config]):
    @hookimpl
    def start(self, context: Context) -> None:
        self.context = context

    @hookimpl
    async def message(self, message: Message) -> Reject | None:
        message.headers.add("X-Time", f"{self.context.clock():.0f}")
        try:
            texts = await self.context.resolver.txt(message.sender.rpartition("@")[2])
        except NoSuchDomainError:
            return Reject("no such domain")
        message.headers.add("X-Text", b", ".join(texts))
        self.context.emit(Event("checked", self.context.clock(), message.id))
        return None


def test_clock_dns_and_events_are_the_tests(make: Make) -> None:
    clock = Clock(1_800_000_000.0)
    dns = FakeDns({"example.com": {"TXT": ['"v=spf1 -all"']}})
    gateway = make(Curious, clock=clock, dns=dns)
    result = gateway.send()
    assert result.message.headers.get("X-Text") == "v=spf1 -all"
    assert result.message.headers.get("X-Time") == "1800000000"
    assert [(event.type, event.time) for event in result.events] == [("checked", 1_800_000_000.0)]
    gateway.clock.move(60)
    assert gateway.send().message.headers.get("X-Time") == "1800000060"
    assert gateway.send(sender="a@example.org").reply == "550 5.7.1 no such domain"
    dns.zones["example.org"] = {"TXT": ['"later"']}
    gateway.dns.zones["example.edu"] = {"TXT": ['"too"']}
    assert gateway.send(sender="a@example.edu").message.headers.get("X-Text") == "too"
    assert dns.queries["example.com", "TXT"] == 1


def test_the_time_is_the_same_in_each_run(make: Make) -> None:
    contents = {make().send().message.content for _ in range(2)}
    assert len(contents) == 1
    assert b"Mon, 01 Jun 2026 12:00:00 +0000" in contents.pop()


def test_data_is_kept_in_a_folder_that_is_the_tests(tmp_path: Path) -> None:
    class Keeper(Plugin[Config]):
        @hookimpl
        def start(self, context: Context) -> None:
            self.count = context.data_folder() / "count"
            self.count.write_text(
                f"{int(self.count.read_text()) + 1 if self.count.exists() else 1}"
            )

    for runs in (1, 2):
        with MemoryGateway(Keeper, folder=tmp_path) as gateway:
            keeper = gateway.plugins["keeper"]
            assert isinstance(keeper, Keeper)
            assert keeper.count.read_text() == str(runs)


# The way out, observers, HTTP, commands.


class Router(Plugin[Config]):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.replies: list[Outcome] = []

    @hookimpl
    async def route(self, delivery: Delivery) -> Route | Delay | None:
        if delivery.domain == "late.example":
            return Delay(60)
        return Route((Hop("relay.example"),), "relay") if delivery.domain == "r.example" else None

    @hookimpl
    def source(self, delivery: Delivery) -> Source | None:
        return Source("192.0.2.9", "out.example") if delivery.route else None

    @hookimpl
    def admit(self, delivery: Delivery) -> Delay | None:
        delivery.ceilings["all"] = 3
        return Delay(5) if delivery.attempts > 3 else None

    @hookimpl
    def reply(self, attempt: Attempt) -> Outcome | None:
        self.replies.append(attempt.outcome)
        if "unknown" in attempt.outcome.text:
            return Outcome(type(attempt.outcome.disposition)("failed"), 550, "5.1.1", "x", "reply")
        return None


def test_the_stages_of_an_attempt(make: Make) -> None:
    gateway = make(Router)
    result = gateway.attempt(gateway.send(to="a@r.example").message, "250 2.0.0 fine")
    assert isinstance(result.route, Route)
    assert result.source == Source("192.0.2.9", "out.example")
    assert result.admit is None
    assert result.made
    assert result.delivery.ceilings == {"all": 3}
    outcome = result.outcome
    assert isinstance(outcome, Outcome)
    assert (outcome.code, outcome.status, outcome.text) == (250, "2.0.0", "fine")
    assert {hook for _, hook in result.timings} == {"route", "source", "admit", "reply"}


def test_an_attempt_that_is_not_made(make: Make) -> None:
    gateway = make(Router)
    late = gateway.attempt(to="a@late.example")
    assert (late.route, late.made) == (Delay(60), False)
    with pytest.raises(AssertionError, match=r"the attempt was not made: Delay\(seconds=60"):
        _ = late.outcome
    assert gateway.attempt(attempts=4).admit == Delay(5)
    two = gateway.attempt(to=["a@example.net", "b@example.net"])
    assert list(two.outcomes) == ["a@example.net", "b@example.net"]
    with pytest.raises(AssertionError, match="there are 2 recipients"):
        _ = two.outcome


def test_a_reply_is_reclassified(make: Make) -> None:
    outcome = make(Router).attempt(mail(), "452 user unknown").outcome
    assert isinstance(outcome, Outcome)
    assert outcome.code == 550
    with pytest.raises(ValueError, match=r"is no reply; for example: 452 4\.2\.2 Mailbox full"):
        make(Router).attempt(mail(), "full")


class Watcher(Plugin[Config]):
    observes = ("bounced",)

    @hookimpl
    def start(self, context: Context) -> None:
        self.context = context

    @hookimpl
    async def observe(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.reason == "raise":
                raise KeyError(event.reason)
            self.context.emit(Event("learned", event.time, event.message_id))

    @hookimpl
    def http(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/watcher/fail":
                raise KeyError("http")
            body = (await receive())["body"]
            text = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
            headers = [(b"X-Client", scope["client"][0].encode())]
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            await send({"type": "http.response.body", "body": text, "more_body": True})
            await send({"type": "http.response.body", "body": body})

        return app

    @hookimpl
    def commands(self, context: Context) -> click.Command:
        @click.command()
        @click.argument("word")
        def say(word: str) -> None:
            """Says it."""
            if word == "raise":
                raise KeyError(word)
            if word == "fail":
                raise click.ClickException("cannot")
            click.echo(f"{context.role} {context.clock():.0f} {word}")

        return say


def test_observers_get_what_they_want(make: Make) -> None:
    gateway = make((Watcher, {"when": {"sender": "*@example.com"}}), role="service")
    bounced = Event("bounced", 1.0, "ID1", sender="a@example.com")
    other = Event("bounced", 1.0, "ID2", sender="a@example.org")
    result = gateway.observe([bounced, other, Event("delivered", 2.0, "ID3", "a@example.com")])
    assert result.seen == {"watcher": [bounced]}
    assert [event.type for event in result.events] == ["learned"]
    assert result.again == []
    assert ("watcher", "observe") in result.timings


def test_an_observer_that_fails_gets_its_events_again() -> None:
    with MemoryGateway(Watcher, may_fail=True) as gateway:
        result = gateway.observe(Event("bounced", 1.0, "ID1", reason="raise"))
    assert result.again == ["watcher"]
    assert "KeyError" in str(result.faults[0])
    with MemoryGateway(Watcher) as gateway, pytest.raises(AssertionError, match="KeyError"):
        gateway.observe(Event("bounced", 1.0, "ID1", reason="raise"))


def test_http_without_a_network(make: Make) -> None:
    gateway = make(Watcher)
    result = gateway.http("post", "/watcher/a%20b?x=1", b"body", client="192.0.2.7")
    assert result.status == 201
    assert result.text == "POST /watcher/a b x=1 body"
    assert result.headers["x-client"] == "192.0.2.7"
    with pytest.raises(ValueError, match=r"no path of a plugin; there are /watcher/"):
        gateway.http("GET", "/other/")
    with pytest.raises(AssertionError, match="KeyError: 'http'"):
        gateway.http("GET", "/watcher/fail")


def test_an_application_that_fails_is_answered_for() -> None:
    with MemoryGateway(Watcher, may_fail=True) as gateway:
        result = gateway.http("GET", "/watcher/fail")
    assert result.status == 500
    assert "KeyError" in str(result.faults[0])


def test_commands_run_as_on_the_command_line(make: Make) -> None:
    gateway = make(Watcher)
    result = gateway.command(["watcher", "hello"])
    assert (result.status, result.output) == (0, "command 1780315200 hello\n")
    result = gateway.command(["watcher", "fail"])
    assert (result.status, result.errors) == (1, "Error: cannot\n")
    assert gateway.command(["watcher"]).status == 2
    with pytest.raises(AssertionError, match=r"the command watcher raise raised KeyError"):
        gateway.command(["watcher", "raise"])
    with pytest.raises(ValueError, match="there is no command 'nope'; there are watcher"):
        gateway.command(["nope"])
