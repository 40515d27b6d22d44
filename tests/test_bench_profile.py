"""The profile of a worker under load: stages, the graph, and a real recording."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import profile
from bench.flame import svg
from bench.load import missing
from bench.stacks import LOOP, SERVICE, Stack, read, summary

WORKER = (
    'process 1:"python gateway run -c /a b;c/gateway.yaml";'
    'process 2:"python -P -m gateway.process.worker {"role": "worker"}";'
    "_run_module_as_main (<frozen runpy>);<module> (gateway/process/worker.py)"
)
IN_LOOP = f"{WORKER};main (gateway/process/worker.py);Runner.run (asyncio/runners.py)"
SEAL = (
    "Session._talk (gateway/smtp/session.py)",
    "Chain.message (gateway/hooks/chain.py)",
    "Dkim.seal (plugins/dkim/__init__.py)",
    "_make (gateway/mail/headers.py)",
)
WRITE = ("Session._talk (gateway/smtp/session.py)", "StreamWriter.write (asyncio/streams.py)")


class TestRead:
    def test_what_workers_do_at_work(self) -> None:
        text = f"{IN_LOOP};{';'.join(SEAL)} 7\n{IN_LOOP} 3\n{IN_LOOP};{';'.join(SEAL)} 2\n"
        assert read(text) == [Stack(SEAL, 9), Stack((), 3)]

    def test_what_their_threads_do(self) -> None:
        thread = "Thread._bootstrap (threading.py)"
        frames = ("Thread._bootstrap_inner (threading.py)", "f (gateway/spool/group_commit.py)")
        process = WORKER.partition(";_run_module")[0]
        assert read(f"{process};{thread};{';'.join(frames)} 4\n") == [Stack(frames, 4)]

    def test_the_service_process_is_one_stage(self) -> None:
        text = IN_LOOP.replace("gateway.process.worker", "gateway.process.service")
        assert read(f"{text};f (plugins/report/__init__.py) 4\n") == [
            Stack((SERVICE, "f (plugins/report/__init__.py)"), 4)
        ]

    @pytest.mark.parametrize(
        "stack",
        [
            WORKER,
            f"{IN_LOOP};Worker.run (gateway/process/worker.py)",
            f"{IN_LOOP};start_plugins (gateway/hooks/lifecycle.py);f (plugins/dkim/key.py)",
            'process 1:"python gateway run";main (gateway/process/supervisor.py)',
        ],
    )
    def test_starting_and_the_supervisor_are_left_out(self, stack: str) -> None:
        assert read(f"{stack} 5\n") == []


class TestStage:
    @pytest.mark.parametrize(
        ("frames", "stage"),
        [
            (SEAL, "plugin dkim"),
            (SEAL[:2], "chain"),
            (WRITE, "reception"),
            (("Shard.flush (gateway/spool/shard.py)",), "spool"),
            (("f (gateway/queue/dispatch.py)", "g (gateway/delivery/pool.py)"), "delivery"),
            (("f (gateway/queue/settle.py)", "g (gateway/log.py)"), "log"),
            (("f (gateway/log_line.py)",), "log"),
            (("Headers.get (gateway/mail/headers.py)",), LOOP),
            ((), LOOP),
            ((SERVICE, *SEAL), SERVICE),
        ],
    )
    def test_it_is_that_of_the_innermost_frame_that_has_one(
        self, frames: tuple[str, ...], stage: str
    ) -> None:
        assert Stack(frames, 1).stage == stage


def test_the_summary_has_stages_and_their_functions() -> None:
    lines = summary([Stack(SEAL, 50), Stack(WRITE, 30), Stack((), 20)]).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "%",
        "plugin dkim 50.0",
        "_make (gateway/mail/headers.py) 50.0",
        "reception 30.0",
        "StreamWriter.write (asyncio/streams.py) 30.0",
        "event loop, sockets 20.0",
    ]


class TestGraph:
    SPACE = "{http://www.w3.org/2000/svg}"

    def boxes(self, stacks: list[Stack]) -> dict[str, tuple[float, float]]:
        """Left and right of each box, by what pointing at it says."""
        root = ElementTree.fromstring(svg(stacks, "a < b"))
        found = {}
        for group in root.iter(f"{self.SPACE}g"):
            title, box = group.find(f"{self.SPACE}title"), group.find(f"{self.SPACE}rect")
            assert title is not None
            assert title.text is not None
            assert box is not None
            left = float(box.attrib["x"])
            found[title.text] = (left, left + float(box.attrib["width"]))
        return found

    def test_boxes_are_as_wide_as_their_share(self) -> None:
        boxes = self.boxes([Stack(SEAL, 50), Stack(WRITE, 30), Stack((), 20)])
        whole = boxes["all: 100.0 %"][1]
        assert boxes["Session._talk (gateway/smtp/session.py): 80.0 %"][1] == pytest.approx(
            0.8 * whole
        )
        left, right = boxes["StreamWriter.write (asyncio/streams.py): 30.0 %"]
        assert right - left == pytest.approx(0.3 * whole)
        assert left == pytest.approx(boxes["_make (gateway/mail/headers.py): 50.0 %"][1])

    @given(
        st.lists(
            st.builds(
                Stack,
                st.lists(st.sampled_from([*SEAL, *WRITE, '<a> & "b" (c.py)']), max_size=6).map(
                    tuple
                ),
                st.integers(1, 1000),
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_it_is_well_formed_and_nothing_sticks_out(self, stacks: list[Stack]) -> None:
        boxes = self.boxes(stacks)
        whole = boxes["all: 100.0 %"][1]
        assert all(0 <= left <= right <= whole + 0.2 for left, right in boxes.values())


class TestCommand:
    def test_without_py_spy_it_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(profile, "profiler", lambda: None)
        assert profile.main(["4k"]) == 2
        assert "pip install py-spy" in capsys.readouterr().err

    def test_cases_that_can_be_profiled(self) -> None:
        assert profile.profiled() == ["4k", "50k", "all"]

    @pytest.mark.skipif(missing() is not None, reason=str(missing()))
    @pytest.mark.skipif(profile.profiler() is None, reason="py-spy is not installed")
    @pytest.mark.timeout(120)
    def test_a_real_profile(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        parent = ["--spool", "/dev/shm"] if os.access("/dev/shm", os.W_OK) else []
        status = profile.main(["4k", "--seconds", "1", "--folder", str(tmp_path), *parent])
        said = capsys.readouterr()
        assert status == 0, said.err
        stages = {line.split("  ")[0] for line in said.out.splitlines()}
        assert {"reception", "plugin dkim", "spool", "delivery"} <= stages
        graph = ElementTree.fromstring((tmp_path / "profile-4k.svg").read_text())
        assert graph.tag.endswith("svg")
        assert (tmp_path / "profile-4k.txt").read_text() in said.out
