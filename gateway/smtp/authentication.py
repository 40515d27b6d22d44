"""Who is let in: pauses for guessers, then the hook `auth`, then the users of the listener."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext

from gateway.hooks.actions import Reject, Tempfail
from gateway.hooks.plugin import Login
from gateway.smtp.listener import Listener

WRONG = "535 5.7.8 The user name or the password is wrong"

log = logging.getLogger("gateway.session")


async def authenticate(listener: Listener, login: Login) -> str | None:
    """The reply that refuses a login; None: `login.user` is let in.

    Raises:
        TooManyGuessesError: its turn does not come yet.
    """
    guesses = listener.guesses
    if guesses is None:
        return await _refusal(listener, login)
    address, name = login.client.address, login.username
    async with guesses.turn(address, name):
        reply = await _refusal(listener, login)
        if reply is None:
            guesses.succeeded(address, name)
        elif reply[0] == "5":
            guesses.failed(address, name)
        return reply


async def _refusal(listener: Listener, login: Login) -> str | None:
    answer = await listener.ingress.chain.auth(login)
    if isinstance(answer, Tempfail):
        return f"454 {answer.status} {answer.text}"
    if isinstance(answer, Reject):
        log.warning("%s: login as %r refused", login.client.address, login.username)
        return f"535 {answer.status} {answer.text}"
    if answer is None and not await _is_user(listener, login):
        log.warning("%s: login as %r failed", login.client.address, login.username)
        return WRONG
    return None


async def _is_user(listener: Listener, login: Login) -> bool:
    users = listener.users
    if users is None:
        return False
    if users.remembers(login.username, login.password):
        return True
    # Checking a hash takes tens of milliseconds on purpose.
    loop = asyncio.get_running_loop()
    async with listener.guesses.hashing if listener.guesses is not None else nullcontext():
        return await loop.run_in_executor(None, users.verify, login.username, login.password)
