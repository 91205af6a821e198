"""Fixtures shared by the suites; those with real daemons are created only when a test uses them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import hosts
from tests.rig.kinds import BY_NAME


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="every fault of the matrix, not only a few")
    parser.addoption("--kind", action="append", help="a host of the rig has this kind of daemon (tests/rig/kinds.py)")


def rig_obstacle() -> str | None:
    """Why the rig can't run on this machine; None when it can."""
    if os.geteuid() != 0:
        return "it takes root"
    missing = [
        name
        for name in ("dockerd", "docker-registry", "debootstrap", "ip", "nsenter", "unshare", "ssh", "ssh-keygen")
        if not shutil.which(name)
    ]
    return f"missing: {', '.join(missing)}" if missing else None


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[hosts.Rig]:
    """Real Docker hosts with the node image; stopped at the end, the images kept."""
    obstacle = rig_obstacle()
    if obstacle and os.environ.get("CI") == "true":
        pytest.fail(f"CI leaves nothing out, but there is no rig of Docker hosts here: {obstacle}")
    if obstacle:
        pytest.skip(f"no rig of Docker hosts here: {obstacle}")
    named: list[str] = request.config.getoption("--kind")
    made = hosts.start(*[BY_NAME[name] for name in named] if named else hosts.USUAL)
    yield made
    made.stop()


@pytest.fixture
def clean(rig: hosts.Rig) -> Iterator[hosts.Rig]:
    """The rig with nothing on it, before and after."""
    for host in rig.hosts:
        host.clear()
    yield rig
    for host in rig.hosts:
        host.clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, without settings from this machine's environment."""
    for name in list(os.environ):
        if name.startswith("VLLMRAY_") and name != "VLLMRAY_TEST_CACHE":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
