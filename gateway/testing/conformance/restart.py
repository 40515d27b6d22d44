"""`start` and `stop`: they work, a second time too, and beside other processes."""

from __future__ import annotations

from gateway.hooks.watchdog import HookTimeoutError
from gateway.testing.conformance.examination import Examination, SkippedError
from gateway.testing.conformance.site import Instance


async def check(examination: Examination) -> str:
    """Starts and stops as processes do that come, go and overlap when a gateway reloads.

    Raises:
        SkippedError: it does not start, so that nothing more can be seen of it.
    """
    site = examination.site
    if not await _start_and_stop(examination, site.instance(), "start"):
        raise SkippedError("it does not start")
    await _start_and_stop(examination, site.instance(), "start, in the folder of an earlier one,")
    worker, other = site.instance(), site.instance(name=f"{examination.candidate.name}#2")
    service = site.instance("service")
    for instance in (worker, other, service):
        try:
            await site.start(instance)
        except (Exception, HookTimeoutError) as error:
            _report(examination, "start, while another process runs,", error)
            raise SkippedError("it does not start") from None
    await _stop(examination, other)
    # What the checks use: another instance has come and gone meanwhile.
    around = examination.probe.around
    examination.use(*[one.rewired(around(one.loaded)) for one in (worker, service)])
    hooks = [hook for hook in ("start", "stop") if worker.has(hook)]
    return f"{' and '.join(hooks)} work" if hooks else "nothing to start or stop"


async def _start_and_stop(examination: Examination, instance: Instance, what: str) -> bool:
    try:
        await examination.site.start(instance)
    except (Exception, HookTimeoutError) as error:
        _report(examination, what, error)
        return False
    await _stop(examination, instance)
    return True


async def _stop(examination: Examination, instance: Instance) -> None:
    try:
        await examination.site.stop(instance)
    except (Exception, HookTimeoutError) as error:
        _report(examination, "stop", error)


def _report(examination: Examination, what: str, error: BaseException) -> None:
    text = f"raises {type(error).__name__}: {error}"
    if isinstance(error, HookTimeoutError | TimeoutError) and not str(error):
        text = "does not end"
    examination.error(f"{what} {text}", examination.candidate.source.of_error(error))
