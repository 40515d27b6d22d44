"""How long hooks take, and whether the event loop has to wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from gateway.testing.conformance.examination import Examination, SkippedError, among
from gateway.testing.conformance.probe import Call

LARGE = 100_000
"""Octets, or a hundredth of so many recipients, for each of which a message has the budget."""

_REMEDY = "await what does not block, or asyncio.to_thread(...), or set blocking = True"

IDLE = 0.05
"""Seconds that a hook may hold the loop without computing."""


async def check(examination: Examination) -> str:
    """Compares each hook's calls with the budget.

    The message was sent several times, and the quickest counts: the machine has other work.
    """
    quickest = _quickest(examination.probe.calls)
    if not quickest:
        raise SkippedError("no hook was called")
    sizes = {
        sample.name: max(1.0, len(sample.content) / LARGE, len(sample.recipients) * 1000 / LARGE)
        for sample in examination.samples
    }
    budget = examination.request.budget
    blocking = examination.candidate.plugin_class.blocking
    notes = []
    for hook, labels in quickest.items():
        times = {label: call.cpu if blocking else call.seconds for label, call in labels.items()}
        worst = max(times, key=lambda label: times[label])
        middle = median(times.values())
        notes.append(f"{hook} {_ms(middle)}, at most {_ms(times[worst])} ({worst})")
        late = [label for label, one in times.items() if one > budget * sizes.get(label, 1.0)]
        if late:
            examination.error(
                f"{hook} takes {_ms(max(times[label] for label in late))} ({among(late)}), and the "
                f"budget is {_ms(budget)}: all other mail of the worker waits meanwhile"
            )
    return "; ".join(notes)


async def check_waiting(examination: Examination) -> str:
    """Names calls that make the event loop wait."""
    watch = examination.watch
    if not examination.probe.calls:
        raise SkippedError("no hook was called")
    blocking = examination.candidate.plugin_class.blocking
    for call in watch.loops if blocking else ():
        examination.error(
            f"{call.hook} uses asyncio, and the plugin is blocking: its hooks run in threads, "
            "where no loop runs; take what waits in itself, or drop blocking = True",
            call.place,
        )
    for call in watch.calls:
        examination.error(
            f"{call.what} in {call.hook}: it stops all that the process does meanwhile; {_REMEDY}",
            call.place,
        )
    named = {call.hook for call in watch.calls}
    on_loop = [one for one in examination.probe.calls if one.hook == "http" or not blocking]
    for hook, labels in _idle(on_loop).items():
        if hook not in named:
            longest = max(labels.values())
            examination.error(
                f"{hook} waits {_ms(longest)} on the event loop ({among(labels)}), for a lock, a "
                f"file or a server; {_REMEDY}"
            )
    if blocking:
        return "its hooks run in threads"
    return "no call waits on the event loop" if not examination.findings else ""


def _quickest(calls: Iterable[Call]) -> Mapping[str, Mapping[str, Call]]:
    """For each hook and message the slowest call of the quickest round."""
    slowest: dict[tuple[str, str, int], Call] = {}
    for call in calls:
        if call.label:
            key = (call.hook, call.label, call.round)
            known = slowest.get(key)
            if known is None or call.seconds > known.seconds:
                slowest[key] = call
    found: dict[str, dict[str, Call]] = {}
    for (hook, label, _), call in slowest.items():
        known = found.setdefault(hook, {}).get(label)
        if known is None or call.seconds < known.seconds:
            found[hook][label] = call
    return found


def _idle(calls: Iterable[Call]) -> Mapping[str, Mapping[str, float]]:
    """Hooks that waited, each time anew, and on which messages."""
    rounds: dict[tuple[str, str], dict[int, float]] = {}
    for call in calls:
        known = rounds.setdefault((call.hook, call.label), {})
        known[call.round] = max(call.idle, known.get(call.round, 0.0))
    found: dict[str, dict[str, float]] = {}
    for (hook, label), by_round in rounds.items():
        least = min(by_round.values())
        if least > IDLE and (len(by_round) > 1 or not label):
            found.setdefault(hook, {})[label] = least
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
