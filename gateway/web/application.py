"""A plugin's ASGI application: made once, and guarded at each request."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence
from time import monotonic, perf_counter

from gateway.hooks.lifecycle import PluginStartError
from gateway.hooks.step import Fault, Step
from gateway.hooks.watchdog import NEVER, HookTimeoutError, Watchdog
from gateway.web.asgi import ASGIApplication, Message, Receive, Scope, Send
from gateway.web.mount import mount_names
from gateway.web.response import respond, secured

log = logging.getLogger("gateway.web")


class Application:
    """Runs what the `http` hook of one plugin gave.

    A request has the entry's `timeout`. One that is late, also because it never yields to the event
    loop, is answered with 503; one that fails, with 500. The log names the plugin, and all others
    go on. If the answer has begun already, the connection is closed.
    """

    def __init__(self, app: ASGIApplication, step: Step, watchdog: Watchdog) -> None:
        self._app = app
        self._step = step
        self._watchdog = watchdog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens."""
        step = self._step
        begun = ended = gone = False

        async def take() -> Message:
            nonlocal gone
            message = await receive()
            gone = message["type"] == "http.disconnect"
            return message

        async def give(message: Message) -> None:
            nonlocal begun, ended
            if message["type"] == "http.response.start":
                begun = True
                await send({**message, "headers": secured(message.get("headers", ()))})
            else:
                await send(message)
                ended = not message.get("more_body", False)

        status = 500
        task = asyncio.current_task()
        assert task is not None
        started = perf_counter()
        self._watchdog.tasks[task] = monotonic() + step.timeout
        try:
            async with asyncio.timeout(step.timeout) as limit:
                await self._app(scope, take, give)
            if not ended and not gone:
                step.fault(Fault("ended before its answer did" if begun else "gave no answer"))
        except BaseException as error:
            # Whatever it is, SystemExit too: it must not end the service.
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                status = 503  # the service ends
            elif isinstance(error, HookTimeoutError) or limit.expired():
                status = 503
                step.fault(HookTimeoutError())
            elif isinstance(error, TimeoutError):
                step.fault(Fault(f"raised TimeoutError: {error}"))
            else:
                step.fault(error)
        finally:
            del self._watchdog.tasks[task]
            step.timing.add(perf_counter() - started)
        if not begun and not gone:
            await respond(send, status)


def load_applications(steps: Sequence[Step], watchdog: Watchdog) -> dict[str, Application]:
    """Runs the `http` hooks; the applications by the first part of the path they are served under.

    Raises:
        PluginStartError: a hook failed, gave no application, or one that cannot be served.
    """
    try:
        mounts = mount_names(step.plugin for step in steps)
    except ValueError as error:
        raise PluginStartError(str(error)) from None
    return {
        name: Application(_application(step, watchdog), step, watchdog)
        for name, step in zip(mounts, steps, strict=True)
    }


def _application(step: Step, watchdog: Watchdog) -> ASGIApplication:
    watchdog.deadline = monotonic() + step.timeout
    try:
        app: ASGIApplication = step.call()
    except HookTimeoutError:
        raise PluginStartError(
            f"plugin {step.plugin} cannot start: http ran longer than {step.timeout:g} s"
        ) from None
    except (Exception, SystemExit) as error:
        log.debug("plugin %s cannot start", step.plugin, exc_info=True)
        raise PluginStartError(
            f"plugin {step.plugin} cannot start: http raised {type(error).__name__}: {error}"
        ) from error
    finally:
        watchdog.deadline = NEVER
    try:
        inspect.signature(app).bind("scope", "receive", "send")
    except (TypeError, ValueError):
        raise PluginStartError(
            f"plugin {step.plugin} cannot start: http answered {type(app).__name__}, and has to "
            "answer an ASGI application: a callable of (scope, receive, send)"
        ) from None
    return app
