"""Values that an HTTP server knows, such as a recommendation engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp

from gateway.hooks import Context
from plugins.personalization.sources.address import ByAddress
from plugins.personalization.sources.batch import Answer, Batched, Question
from plugins.personalization.sources.config import HttpConfig
from plugins.personalization.sources.outage import Outage
from plugins.personalization.sources.source import SourceError
from plugins.personalization.sources.values import check, read_json

_CONNECTION_FAILED = (
    aiohttp.ClientConnectorError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
)

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "mail-gateway",
}


def http_source(config: HttpConfig) -> Batched:
    """The source of a configuration."""
    return Batched(
        HttpServer(config),
        size=config.batch,
        wait=config.wait,
        most=config.connections,
        cache=config.cache,
        fallback=config.fallback,
    )


class _Failure(Exception):  # noqa: N818 - one attempt to get an answer failed; the text says how
    """There is no answer, or none that can be used."""


class HttpServer:
    """An HTTP server that is asked by POST, many recipients in one request."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        parts = urlsplit(config.url)
        # What comes after a question mark may be a key.
        self._outage = Outage(f"http {parts.scheme}://{parts.hostname}{parts.path}")
        self._session: aiohttp.ClientSession | None = None

    async def open(self, context: Context) -> None:
        """Makes the pool of connections; connects to nobody yet."""
        self._outage.start(context.log)
        config = self._config
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**_HEADERS, **headers},
            # What is compressed has no size that could be bounded.
            auto_decompress=False,
            # The configuration says who is asked, not the environment.
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def together(self, question: Question) -> Hashable:
        """Any questions can be asked at once."""
        return None

    def identity(self, question: Question) -> Hashable:
        """An answer is the same for another message of the same campaign and stream."""
        return question.address, question.campaign, question.stream

    async def ask(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Asks about some recipients.

        Raises:
            SourceError: the server cannot be reached, is late, or gives an answer that cannot be
                used; temporary.
        """
        try:
            try:
                async with asyncio.timeout(self._config.timeout):
                    answers = self._read(await self._post(_request(questions)), questions)
            except TimeoutError:
                raise _Failure(f"no answer within {self._config.timeout:g} s") from None
        except _Failure as failure:
            self._outage.failed(str(failure))
            raise SourceError("The recipient's data cannot be had now", temporary=True) from None
        return answers

    async def _post(self, body: bytes) -> bytes:
        for attempt in range(self._config.retries + 1):
            try:
                return await self._post_once(body)
            except _CONNECTION_FAILED as error:
                if attempt == self._config.retries:
                    _fail(error)
            except aiohttp.ClientError as error:
                _fail(error)
        raise AssertionError

    async def _post_once(self, body: bytes) -> bytes:
        assert self._session is not None, "not started"
        limit = self._config.size
        async with self._session.post(
            self._config.url,
            data=body,
            headers={"Content-Type": "application/json"},
            # A redirect would take the recipients to another server than the one configured.
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise _Failure(f"the server answered {response.status}, not 200")
            blocks = []
            size = 0
            async for block in response.content.iter_any():
                size += len(block)
                if size > limit:
                    raise _Failure(f"the answer is larger than {limit} octets")
                blocks.append(block)
        return b"".join(blocks)

    def _read(self, body: bytes, questions: Sequence[Question]) -> dict[str, Answer]:
        """The answers for those who were asked about; others in it are left out."""
        try:
            answer = read_json(body)
        except ValueError:
            raise _Failure("the answer is not JSON") from None
        recipients: Any = answer.get("recipients") if isinstance(answer, dict) else None
        if not isinstance(recipients, dict):
            raise _Failure('the answer has no recipients; expected {"recipients": {…}}')
        known: ByAddress[Any] = ByAddress(recipients.items())
        answers: dict[str, Answer] = {}
        worked = True
        for question in questions:
            values = known.get(question.address)
            if values is None:
                continue
            try:
                answers[question.address] = check(values)
            except ValueError as error:
                worked = False
                self._outage.failed(f"the values of a recipient cannot be used: {error}")
                answers[question.address] = SourceError(
                    "The recipient's data cannot be used", temporary=True
                )
        if worked:
            self._outage.worked()
        return answers


def _fail(error: Exception) -> NoReturn:
    # The text of an invalid URL's error would show a key in it.
    text = type(error).__name__ if isinstance(error, aiohttp.InvalidURL) else str(error)
    raise _Failure(f"the request failed: {text or type(error).__name__}") from None


def _request(questions: Sequence[Question]) -> bytes:
    recipients = [
        {
            "address": question.address,
            "message_id": question.message_id,
            "campaign": question.campaign,
            "stream": question.stream,
        }
        for question in questions
    ]
    return json.dumps({"recipients": recipients}).encode()
