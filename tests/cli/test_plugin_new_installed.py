"""A new package, built and installed into an environment of its own, as its users do."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.hooks.spec import STAGES
from gateway.scaffold.files import Draft
from gateway.scaffold.name import PluginName
from gateway.testing import NextHop
from tests.cli.new_package import succeeds, write_package
from tests.e2e.conftest import Gateway


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own that has what this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if Path(path).is_dir()]
    (site / "here.pth").write_text("\n".join(paths) + "\n")
    return folder / "bin" / "python"


def _install(environment: Path, project: Path) -> None:
    """Builds the wheel of a project, without a network, and installs it."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps")
    succeeds(
        *(*pip, "wheel", *offline, "--no-build-isolation", "-w", project / "dist", project),
        cwd=project,
    )
    (wheel,) = (project / "dist").glob("*.whl")
    succeeds(*(*pip, "--python", environment, "install", *offline, wheel), cwd=project)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "hooks_given",
    [
        pytest.param(["message"], id="message", marks=pytest.mark.long),
        pytest.param(list(STAGES), id="all"),
    ],
)
def test_a_new_package_works_where_it_is_installed(
    environment: Path, tmp_path: Path, hooks_given: Sequence[str]
) -> None:
    name = PluginName(f"with-{len(hooks_given)}-hooks")
    project = tmp_path / "project"
    write_package(project, Draft(name, hooks_given, "Does something."))
    _install(environment, project)
    wheel_installed = (environment.parent.parent).rglob(f"{name.module}-0.1.0.dist-info")
    assert len(list(wheel_installed)) == 1
    run = (environment, "-m")
    succeeds(*run, "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    shown = succeeds(*run, "gateway", "plugin", "show", name.name, cwd=tmp_path)
    assert shown.startswith(f"{name.name}: Does something.\n")
    assert f"  package     {name.distribution} 0.1.0\n" in shown
    listed = succeeds(*run, "gateway", "plugin", "list", cwd=tmp_path)
    assert f"hooks: {', '.join(hooks_given)}\n" in listed
    (block,) = re.findall(r"```yaml\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)
    (tmp_path / "gateway.yaml").write_text(block)
    assert "good: 1 plugin" in succeeds(*run, "gateway", "check", cwd=tmp_path)
    succeeds(*run, "gateway", "plugin", "check", name.name, cwd=tmp_path)
    again = subprocess.run(
        [*run, "gateway", "plugin", "new", name.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"is installed already ({name.distribution})" in again.stderr


@pytest.mark.timeout(300)
async def test_a_new_package_works_in_a_running_gateway(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = PluginName("at-work")
    write_package(tmp_path / "project", Draft(name))
    await asyncio.to_thread(_install, environment, tmp_path / "project")
    monkeypatch.setattr(sys, "executable", str(environment))
    plugins = "plugins: [{at-work: {value: hard}}]"
    async with NextHop() as hop:
        gateway = Gateway(tmp_path, hop.address, plugins, workers=1)
        try:
            await asyncio.to_thread(gateway.start)
            await asyncio.to_thread(gateway.submit, "Hi")
            (message,) = await hop.wait(1)
            assert await asyncio.to_thread(gateway.stop) == 0
        finally:
            gateway.clean()
    assert b"\r\nX-At-Work: hard\r\n" in message.content
