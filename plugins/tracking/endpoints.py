"""The web side of tracked mail: clicks, opens, conversions, and unsubscribing (RFC 8058)."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.hooks import Context, Event
from plugins.tracking import pages
from plugins.tracking.bursts import MOST_REQUESTS, Bursts, Trail
from plugins.tracking.conversion import ConversionError, conversion
from plugins.tracking.endpoints_config import EndpointsConfig
from plugins.tracking.keys import Keyring
from plugins.tracking.orders import Orders
from plugins.tracking.pages import Language
from plugins.tracking.recording import Recorder
from plugins.tracking.request import (
    DisconnectedError,
    Receive,
    Request,
    RequestError,
    Scope,
    Send,
)
from plugins.tracking.robots import image_proxy, verdict
from plugins.tracking.token import Kind, Token

_GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
_NO_STORE = (b"cache-control", b"no-store")
_PAGE_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", pages.CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # The path has the token.
    (b"referrer-policy", b"no-referrer"),
    (b"x-robots-tag", b"noindex"),
)

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; it is never stored by caches."""

    status: int
    body: bytes = b""
    headers: Headers = ()


def _text(status: int, text: str, *headers: tuple[bytes, bytes]) -> Answer:
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    nosniff = (b"x-content-type-options", b"nosniff")
    return Answer(status, f"{text}\n".encode(), (content_type, nosniff, *headers))


def _json(status: int, **data: str) -> Answer:
    body = json.dumps(data).encode() + b"\n"
    return Answer(status, body, ((b"content-type", b"application/json"),))


def _page(status: int, body: bytes) -> Answer:
    return Answer(status, body, _PAGE_HEADERS)


_IMAGE = Answer(200, _GIF, ((b"content-type", b"image/gif"),))
_NO_IMAGE = _text(404, "Not found")
_NOT_FOUND = _page(404, pages.not_found_page())
_NOT_SAVED = _text(503, "This could not be saved. Please try again later.")
_UNSUBSCRIBED = _text(200, "You are unsubscribed.")


class Endpoints:
    """An ASGI application for `/c/TOKEN`, `/o/TOKEN`, `/u/TOKEN` and `/v`.

    Args:
        config: what is recorded, and what pages say.
        base_urls: the URLs that people reach it under.
        keyring: opens tokens.
        context: where events and files go.

    Raises:
        ValueError: the file of orders cannot be used.
    """

    def __init__(
        self,
        config: EndpointsConfig,
        base_urls: Sequence[str],
        keyring: Keyring,
        context: Context,
    ) -> None:
        self._config = config
        self._keyring = keyring
        self._clock = context.clock
        self._log = context.log
        self._recorder = Recorder(context.emit, context.log)
        self._bursts = Bursts(config.burst_links, config.burst_window)
        # Counted apart: robots that follow every link must not keep anyone from unsubscribing.
        self._posts = Bursts(config.burst_links, config.burst_window)
        self._marks_clicks = config.click_parameter is not None or config.click_cookie is not None
        secure = all(url.startswith("https:") for url in base_urls)
        self._cookie_attributes = (
            f"; Max-Age={int(config.click_cookie_lifetime)}; Path=/; HttpOnly; SameSite=Lax"
            + ("; Secure" if secure else "")
        )
        page = config.unsubscribe_page
        self._texts = {"en": page.en.texts("en"), "ja": page.ja.texts("ja")}
        self._reasons = {
            language: [(reason.name, reason.text(language)) for reason in page.reasons]
            for language in pages.LANGUAGES
        }
        self._reason_names = {reason.name for reason in page.reasons}
        self._orders: Orders | None = None
        if config.conversions is not None:
            self._orders = Orders(
                context.data_folder() / "orders.db",
                config.conversions.remember,
                self._recorder,
                context.clock,
                context.log,
            )

    async def close(self) -> None:
        """Closes the file of orders."""
        if self._orders is not None:
            await self._orders.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI 3.0 says; a WebSocket is refused."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        request = Request.of(scope)
        try:
            answer = await self._answer(request, receive)
        except RequestError as error:
            # What was not read of the body would be taken for the next request.
            answer = _text(error.status, str(error), (b"connection", b"close"))
        except DisconnectedError:
            return
        length = b"%d" % len(answer.body)
        headers = [*answer.headers, _NO_STORE, (b"content-length", length)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if request.method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, request: Request, receive: Receive) -> Answer:
        path, method = request.path, request.method
        start, text = path[:3], path[3:]
        readable = method in ("GET", "HEAD")
        if start == "/c/":
            return await self._click(request, text) if readable else _refuse("GET, HEAD")
        if start == "/o/":
            return await self._open(request, text) if readable else _refuse("GET, HEAD")
        if start == "/u/":
            if method == "POST":
                return await self._unsubscribe(request, receive, text)
            return self._ask(request, text) if readable else _refuse("GET, HEAD, POST")
        if path in ("/v", "/v/") and self._config.conversions is not None:
            pixel = self._config.conversions.pixel
            secret = self._config.conversions.secret
            if pixel and readable:
                return await self._pixel(request)
            if secret is not None and method == "POST":
                return await self._report(request, receive, secret.get_secret_value())
            return _refuse(", ".join(["GET, HEAD"] * pixel + ["POST"] * (secret is not None)))
        return _NOT_FOUND

    # Clicks and opens.

    async def _click(self, request: Request, text: str) -> Answer:
        token = self._keyring.open(text, Kind.CLICK)
        if token is None:
            return _NOT_FOUND
        await self._measure("clicked", token, request)
        location, headers = token.url, []
        if self._marks_clicks:
            mark = self._keyring.seal(replace(token, kind=Kind.CONVERSION, url="", day=0))
            if self._config.click_parameter is not None:
                location = with_parameter(location, self._config.click_parameter, mark)
            if self._config.click_cookie is not None:
                cookie = f"{self._config.click_cookie}={mark}{self._cookie_attributes}"
                headers.append((b"set-cookie", cookie.encode("ascii")))
        headers.append((b"location", location.encode("ascii")))
        return Answer(302, b"", tuple(headers))

    async def _open(self, request: Request, text: str) -> Answer:
        token = self._keyring.open(text, Kind.OPEN)
        if token is None:
            return _NO_IMAGE
        await self._measure("opened", token, request)
        return _IMAGE

    async def _measure(self, event_type: str, token: Token, request: Request) -> None:
        robot, trail = self._judge(token, request)
        if trail.flood:
            return
        event = self._event(event_type, token, request, robot)
        if not robot:
            trail.keep(event)
        await self._recorder.record(event)

    def _judge(self, token: Token, request: Request) -> tuple[str, Trail]:
        """Says what made a request, and marks what was recorded before it as a person's and is
        now seen to be a robot's: the same events are emitted again with the note.
        """
        kind = token.kind
        robot = verdict(kind, request.method, request.user_agent, request.purpose)
        link = "" if robot or kind not in _FOLLOWED else token.url or kind
        now = asyncio.get_running_loop().time()
        trail = self._bursts.step(token.message_id, token.recipient, link, now)
        if trail.requests == MOST_REQUESTS + 1:
            self._log.warning(
                "%s is asked for more than %d times within %g s; the rest is not recorded",
                token.message_id,
                MOST_REQUESTS,
                self._config.burst_window,
            )
        if trail.burst and not robot:
            robot = "burst"
            for event in trail.take():
                self._recorder.submit(replace(event, notes={**event.notes, "robot": robot}))
        return robot, trail

    def _event(
        self,
        event_type: str,
        token: Token,
        request: Request,
        robot: str = "",
        reason: str = "",
        **notes: str,
    ) -> Event:
        agent = request.user_agent
        every = {
            "campaign": token.campaign,
            "variant": token.variant,
            "url": token.url,
            "link": token.link,
            "robot": robot,
            "proxy": image_proxy(agent) if token.kind is Kind.OPEN else "",
            "ip": request.address if self._config.store_address else "",
            "user_agent": agent if self._config.store_user_agent else "",
            **notes,
        }
        return Event(
            event_type,
            self._clock(),
            token.message_id,
            token.sender,
            token.recipient,
            token.stream,
            reason=reason,
            notes={name: note for name, note in every.items() if note},
        )

    # Unsubscribing.

    def _language(self, request: Request, chosen: str) -> Language:
        for language in pages.LANGUAGES:
            if chosen == language:
                return language
        return pages.preferred_language(
            request.header(b"accept-language"), self._config.unsubscribe_page.language
        )

    def _ask(self, request: Request, text: str) -> Answer:
        token = self._keyring.open(text, Kind.UNSUBSCRIBE)
        if token is None:
            return _NOT_FOUND
        # Programs follow this link too, and must not be able to do harm.
        self._judge(token, request)
        language = self._language(request, request.query().get("lang", ""))
        texts, reasons = self._texts[language], self._reasons[language]
        return _page(200, pages.ask_page(language, texts, token.recipient, reasons))

    async def _unsubscribe(self, request: Request, receive: Receive, text: str) -> Answer:
        token = self._keyring.open(text, Kind.UNSUBSCRIBE)
        if token is None:
            return _NOT_FOUND
        fields = request.fields(await request.body(receive))
        one_click = fields.get("List-Unsubscribe", "").lower() == "one-click"
        if not one_click and pages.CONFIRMATION not in fields:
            return _text(400, "Expected the field List-Unsubscribe=One-Click (RFC 8058)")
        now = asyncio.get_running_loop().time()
        if self._posts.step(token.message_id, token.recipient, "", now).flood:
            return _text(429, "Too many requests", (b"retry-after", b"60"))
        reason = fields.get(pages.REASON, "")
        event = self._event(
            "unsubscribed",
            token,
            request,
            reason=reason if reason in self._reason_names else "",
            source="one-click" if one_click else "page",
        )
        saved = await self._recorder.confirm(event)
        if one_click:
            return _UNSUBSCRIBED if saved else _NOT_SAVED
        language = self._language(request, request.query().get("lang", ""))
        make = pages.done_page if saved else pages.try_again_page
        return _page(200 if saved else 503, make(language, self._texts[language], token.recipient))

    # Conversions.

    async def _pixel(self, request: Request) -> Answer:
        fields = request.query()
        text, cookie = fields.get("t", ""), self._config.click_cookie
        token = self._keyring.open(text, Kind.CONVERSION)
        if text and token is None:
            return _NO_IMAGE
        if token is None and cookie is not None:
            token = self._keyring.open(request.cookie(cookie), Kind.CONVERSION)
        # Most visitors of a shop come from elsewhere.
        if token is None or request.method == "HEAD":
            return _IMAGE
        robot, trail = self._judge(token, request)
        if trail.flood:
            return _IMAGE
        try:
            outcome = await self._convert(token, request, fields, "pixel", robot)
        except ConversionError as error:
            return _text(400, str(error))
        return _NOT_SAVED if outcome == "failed" else _IMAGE

    async def _report(self, request: Request, receive: Receive, secret: str) -> Answer:
        scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        known = hmac.compare_digest(given.strip(), secret.encode())
        if not known or scheme.lower() != b"bearer":
            challenge = (b"www-authenticate", b"Bearer")
            answer = _json(401, error="the bearer token is missing or wrong")
            return replace(answer, headers=(*answer.headers, challenge, (b"connection", b"close")))
        try:
            fields = request.fields(await request.body(receive))
            token = self._keyring.open(fields.get("t", ""), Kind.CONVERSION)
            if token is None:
                return _json(404, error="t is no token of a click, or too old")
            outcome = await self._convert(token, request, fields, "server")
        except (RequestError, ConversionError) as error:
            return _json(getattr(error, "status", 400), error=str(error))
        if outcome == "failed":
            return _json(503, error="this could not be saved; try again later")
        return _json(200, conversion=outcome)

    async def _convert(
        self,
        token: Token,
        request: Request,
        fields: dict[str, str],
        source: str,
        robot: str = "",
    ) -> str:
        assert self._orders is not None, "there are conversions only where they are configured"
        made = conversion(fields)
        event = self._event(
            "converted",
            token,
            request,
            robot,
            value=made.value,
            currency=made.currency,
            order=made.order,
            source=source,
        )
        return await self._orders.record(made.key(token.message_id, token.recipient), event)


_FOLLOWED = (Kind.CLICK, Kind.UNSUBSCRIBE)


def with_parameter(url: str, name: str, value: str) -> str:
    """A URL with one more parameter at the end of its query, before the fragment."""
    address, sharp, fragment = url.partition("#")
    mark = "?" if "?" not in address else "" if address[-1] in "?&" else "&"
    return f"{address}{mark}{name}={value}{sharp}{fragment}"


def _refuse(allowed: str) -> Answer:
    return _text(405, "Method not allowed", (b"allow", allowed.encode("ascii")))
