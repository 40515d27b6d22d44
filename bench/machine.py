"""What everything was measured on: the figures mean little without it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import cryptography
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bench.signature import BITS

_RATE = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Machine:
    """The hardware, and the two rates that bound every relay that signs and keeps mail.

    `fsync_ms` is the median time to write 4 KB and fsync it in the folder of the queues.
    `signatures_all_cores` is what `openssl speed` makes on all cores at once per second, None
    without it; `signatures_one_core` what one thread makes with `cryptography`. `load` is how
    many processes wanted a core, on average over the minute before.
    """

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    load: float
    filesystem: str
    fsync_ms: float
    openssl: str
    signatures_all_cores: float | None
    cryptography: str
    signatures_one_core: float

    @classmethod
    def look(cls, folder: Path) -> Machine:
        """Looks at this machine, and measures in `folder`: about four seconds."""
        load = os.getloadavg()[0]
        cores = len(os.sched_getaffinity(0))
        openssl, all_cores = _openssl(cores)
        return cls(
            cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
            cores=cores,
            memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            kernel=platform.release(),
            python=platform.python_version(),
            load=load,
            filesystem=filesystem(folder, Path("/proc/mounts").read_text()),
            fsync_ms=_fsync(folder) * 1e3,
            openssl=openssl,
            signatures_all_cores=all_cores,
            cryptography=cryptography.__version__,
            signatures_one_core=_signatures(),
        )

    def lines(self) -> list[tuple[str, str]]:
        """What it is, for the head of the report: a label and a text each."""
        busy = " (busy: the figures are noisy)" if self.load > self.cores / 4 else ""
        memory_only = " (in memory: fsync costs nothing)" if self.filesystem == "tmpfs" else ""
        all_cores = (
            f"{self.signatures_all_cores:,.0f}/s on {self.cores} cores ({self.openssl}), "
            if self.signatures_all_cores is not None
            else ""
        )
        return [
            ("machine", f"{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB"),
            ("system", f"Linux {self.kernel}, Python {self.python}, load {self.load:.1f}{busy}"),
            ("disk", f"{self.filesystem}, fsync {self.fsync_ms:.2f} ms median{memory_only}"),
            (
                f"RSA-{BITS}",
                f"{all_cores}{self.signatures_one_core:,.0f}/s on one "
                f"(cryptography {self.cryptography})",
            ),
        ]


def filesystem(folder: Path, mounts: str) -> str:
    """The type of the file system that `folder` is on, from the text of /proc/mounts."""
    resolved = folder.resolve()
    kind, longest = "unknown", -1
    for line in mounts.splitlines():
        _, point, this_kind = line.split(" ")[:3]
        mount = Path(point.replace("\\040", " "))
        # The later of two on the same point hides the earlier.
        if resolved.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = this_kind, len(mount.parts)
    return kind


def signing_rate(output: str) -> float | None:
    """Signatures per second from the table of `openssl speed`; None if it is not there.

    Its columns are times, with an `s` after each, and then rates, that of signing first.
    """
    for line in output.splitlines():
        if re.match(rf"rsa\s*{BITS} bits", line):
            rates = [word for word in line.split() if _RATE.fullmatch(word)]
            return float(rates[0]) if rates else None
    return None


def _openssl(cores: int) -> tuple[str, float | None]:
    if shutil.which("openssl") is None:
        return "not installed", None
    version = subprocess.run(
        ["openssl", "version"], capture_output=True, text=True, timeout=10, check=False
    )
    speed = subprocess.run(
        ["openssl", "speed", "-seconds", "1", "-multi", str(cores), f"rsa{BITS}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return " ".join(version.stdout.split()[:2]), signing_rate(speed.stdout)


def _signatures(seconds: float = 1.0) -> float:
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
        count += 1
    return count / elapsed


def _fsync(folder: Path, times: int = 100, seconds: float = 2.0) -> float:
    took: list[float] = []
    file = folder / "fsync"
    with file.open("wb", buffering=0) as output:
        deadline = time.perf_counter() + seconds
        while len(took) < times and time.perf_counter() < deadline:
            output.write(bytes(4096))
            started = time.perf_counter()
            os.fsync(output.fileno())
            took.append(time.perf_counter() - started)
    file.unlink()
    return statistics.median(took)


def _field(file: Path, name: str) -> str | None:
    for line in file.read_text().splitlines():
        label, _, value = line.partition(":")
        if label.strip() == name:
            return value.strip()
    return None
