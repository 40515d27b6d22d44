from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.doctor.mounts import mount_of
from gateway.doctor.spool_folder import fsync_seconds
from gateway.spool.room import room_of
from tests.doctor.sites import found, site_of, texts

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 254:1 / /var/my\040mail rw,noatime - ext3 /dev/vdb rw,barrier=0
32 27 0:40 / /var/lib rw - overlay overlay rw,lowerdir=/x
33 27 0:41 / /var/lib rw - nfs4 host:/x rw
this is no mount"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/srv/spool", "/", "ext4"),
        ("/var/library", "/", "ext4"),
        ("/var/lib/spool", "/var/lib", "nfs4"),
        ("/var/my mail/spool", "/var/my mail", "ext3"),
    ],
)
def test_the_file_system_of_a_folder(path: str, point: str, kind: str) -> None:
    mount = mount_of(path, MOUNTS)
    assert mount is not None
    assert (mount.point, mount.kind) == (point, kind)
    assert mount.without_barriers is (kind == "ext3")


def test_without_a_word_of_mounts_there_is_none() -> None:
    assert mount_of("/srv", "") is None


def test_a_file_system_without_a_number_of_files_has_room() -> None:
    def status(files: int, free: int) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1000, 500, 400, files, free, free, 0, 255))

    assert room_of(status(100, 50)) == 400 * 4096
    assert room_of(status(100, 0)) == 0
    assert room_of(status(0, 0)) == 400 * 4096


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder in a file system in memory."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or not os.access(shared, os.W_OK):
        pytest.skip("/dev/shm is not there")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


async def test_mail_in_memory_is_a_problem(in_memory: Path) -> None:
    site = site_of(in_memory)
    site.config.spool.path.mkdir(mode=0o700)
    (text,) = await texts("spool", site, "problem")
    assert "in memory: all mail is lost" in text


async def test_a_folder_that_is_not_there_is_made_at_the_start(tmp_path: Path) -> None:
    (finding,) = await found("spool", site_of(tmp_path))
    assert finding.severity == "note"
    assert not (tmp_path / "spool").exists()


async def test_a_good_folder(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    site.config.spool.path.mkdir(mode=0o700)
    told = await texts("spool", site, "ok")
    assert any("belongs to" in text for text in told)
    assert any("free on the disk" in text for text in told)
    assert await texts("spool", site, "problem") == []
    assert list(site.config.spool.path.iterdir()) == []


async def test_others_may_not_enter(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    site.config.spool.path.mkdir()
    site.config.spool.path.chmod(0o750)
    (finding,) = [one for one in await found("spool", site) if "may enter" in one.text]
    assert finding.remedy == f"chmod 700 {site.config.spool.path}"


async def test_a_reserve_that_is_not_free(tmp_path: Path) -> None:
    base = "hostname: gw.example.com\nspool: {path: spool, reserve: 1000000GB}\n"
    site = site_of(tmp_path, base=base + "listen: [{address: '127.0.0.1:0'}]\n")
    site.config.spool.path.mkdir(mode=0o700)
    assert any("clients are told" in text for text in await texts("spool", site, "problem"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_files_of_another_user(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    folder = site.config.spool.path
    folder.mkdir(mode=0o700)
    (folder / "0001.db").touch()
    os.chown(folder / "0001.db", 65534, 65534)
    (text,) = [text for text in await texts("spool", site, "problem") if "belong" in text]
    assert "0001.db" in text


def test_an_fsync_takes_its_time(tmp_path: Path) -> None:
    assert 0 < fsync_seconds(tmp_path) < 60
    with pytest.raises(OSError, match="No such file"):
        fsync_seconds(tmp_path / "none")
