"""Failed logins are counted over all processes; the next one waits for longer and longer."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits import Limits
from gateway.smtp.guesses import LONGEST_NAME_PAUSE, Guesses, TooManyGuessesError

HOME = "192.0.2.1"
AWAY = "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """Guesses at a site with a clock of its own."""

    def __init__(self, folder: Path, failures: int = 3, pause: float = 900.0) -> None:
        self.clock = Clock()
        self.limits = Limits(folder / "logins", places=1024)
        self.guesses = Guesses(self.limits, failures, pause, self.clock)

    async def turn(self, address: str, name: str = "shop") -> str:
        """What a login hears before its password is looked at; '' for nothing."""
        try:
            async with self.guesses.turn(address, name):
                return ""
        except TooManyGuessesError as error:
            return str(error)

    async def wait(self, address: str, name: str = "shop") -> float:
        """The seconds that a login has to wait."""
        text = await self.turn(address, name)
        return float(text.split()[-2]) if text else 0.0

    def fail(self, address: str, name: str = "shop", times: int = 1) -> None:
        for _ in range(times):
            self.guesses.failed(address, name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.limits.close()


async def test_the_wait_doubles_up_to_the_longest(site: Site) -> None:
    waits = []
    for _ in range(16):
        site.fail(AWAY, "a")
        waits.append(await site.wait(AWAY, "b"))
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]


async def test_a_wait_ends_and_an_hour_without_failures_forgets_all(site: Site) -> None:
    site.fail(AWAY, times=5)
    assert await site.turn(AWAY) == "Too many failed logins, try again in 4 seconds"
    site.clock.now += 3.9
    assert await site.wait(AWAY) == 1
    site.clock.now += 0.2
    assert await site.wait(AWAY) == 0
    site.fail(AWAY)
    assert await site.wait(AWAY) == 8
    site.clock.now += 3601
    site.fail(AWAY, times=2)
    assert await site.wait(AWAY) == 0


async def test_no_user_is_locked_out_by_guesses_from_somewhere_else(site: Site) -> None:
    site.guesses.succeeded(HOME, "shop")
    for number in range(100):
        site.fail(f"203.0.113.{number}")
    # Where he has logged in before, he does not notice; elsewhere he waits for a minute at most.
    assert await site.wait(HOME) == 0
    assert await site.wait(AWAY) == LONGEST_NAME_PAUSE
    assert await site.wait(AWAY, "other") == 0


async def test_the_own_address_of_a_user_is_counted_too(site: Site) -> None:
    site.guesses.succeeded(HOME, "shop")
    site.fail(HOME, times=20)
    assert await site.wait(HOME) == LONGEST_NAME_PAUSE
    # His neighbours behind the same address do not pay for it.
    assert await site.wait(HOME, "crm") == 0
    assert await site.wait(AWAY) == 0
    site.guesses.succeeded(HOME, "shop")
    assert await site.wait(HOME) == 0


async def test_guesses_of_neighbours_do_not_lock_out_who_is_known(site: Site) -> None:
    site.guesses.succeeded(HOME, "shop")
    site.fail(HOME, "crm", times=10)
    assert await site.wait(HOME, "crm") == 128
    assert await site.wait(HOME, "shop") == 0


async def test_an_address_is_forgotten_a_month_after_its_last_login(site: Site) -> None:
    site.guesses.succeeded(HOME, "shop")
    site.clock.now += 29 * 86400
    site.guesses.succeeded(HOME, "shop")
    site.clock.now += 29 * 86400
    site.fail(AWAY, times=3)
    assert await site.wait(HOME) == 0
    site.clock.now += 2 * 86400
    site.fail(AWAY, times=3)
    assert await site.wait(HOME) == 1


async def test_a_client_has_one_ipv4_address_or_half_an_ipv6_address(site: Site) -> None:
    for number in range(3):
        site.fail(f"2001:db8::{number}", f"name-{number}")
    assert await site.wait("2001:db8::ffff:ffff:ffff:ffff", "x") == 1
    assert await site.wait("2001:db8:0:1::", "x") == 0
    site.fail("192.0.2.3", times=3)
    assert await site.wait("192.0.2.4", "x") == 0


async def test_what_comes_at_once_sees_the_failures_before_it(site: Site) -> None:
    """A thousand connections at the same moment get no more guesses than one after the other."""
    tested = 0

    async def guess(number: int) -> None:
        nonlocal tested
        try:
            async with site.guesses.turn(AWAY, f"name-{number}"):
                tested += 1
                await asyncio.sleep(0.001)
                site.fail(AWAY, f"name-{number}")
        except TooManyGuessesError:
            pass

    await asyncio.gather(*map(guess, range(1000)))
    assert 3 <= tested <= 3 + 4
    assert not site.guesses._turns


async def test_a_clock_that_is_set_back_makes_nobody_wait_for_longer(site: Site) -> None:
    site.fail(AWAY, times=4)
    site.clock.now -= 86400
    assert await site.wait(AWAY) == 2


async def test_a_full_file_lets_in_who_is_known(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.guesses.succeeded(HOME, "shop")
    for number in range(1200):
        site.fail(f"2001:db8:{number:x}::1", f"{number}")
    assert "failed logins cannot be counted" in caplog.text
    assert await site.wait(HOME) == 0
    assert 0 < await site.wait(AWAY, "unheard of") <= 60
    site.clock.now += 3700
    assert await site.wait(AWAY, "unheard of") == 0


async def test_a_file_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logins").mkdir()
    site = Site(tmp_path)
    assert await site.turn(HOME) == "Logins are not possible now, try again later"
    site.guesses.succeeded(HOME, "shop")
    site.guesses.failed(HOME, "shop")
    assert caplog.text.count("cannot be") == 3


async def test_names_are_not_kept_as_they_are(site: Site, tmp_path: Path) -> None:
    site.fail(AWAY, "typed-my-password-here")
    site.guesses.succeeded(AWAY, "typed-my-password-here")
    site.limits.close()
    assert b"typed-my-password" not in (tmp_path / "logins").read_bytes()


def test_the_log_says_it_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site.fail(AWAY, "a\nb", times=50)
    assert [record.getMessage() for record in caplog.records] == [
        f"{AWAY}: 3 logins failed, the next ones have to wait",
        "'a\\nb': 3 logins failed, the next ones have to wait",
    ]


def _fail(folder: Path) -> None:
    Site(folder).fail(AWAY, times=25)


async def test_all_processes_count_together(site: Site, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fail, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (cell,) = site.limits.cells("address ", site.clock.now)
    assert cell.value == 100


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 600)), max_size=40))
def test_nobody_ever_waits_for_longer_than_is_said(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float]]
) -> None:
    site = Site(tmp_path_factory.mktemp("site"), pause=300.0)

    async def run() -> None:
        for number, seconds in steps:
            address = f"192.0.2.{number}"
            wait = await site.wait(address)
            assert wait <= 300
            site.clock.now += wait
            assert await site.wait(address) == 0
            site.fail(address)
            site.clock.now += seconds

    asyncio.run(run())
    site.limits.close()
