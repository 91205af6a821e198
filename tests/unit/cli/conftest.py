"""A command line finds nothing of this machine's user: no settings, no secrets, no daemon that was not named."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read by vllmray or by the Docker SDK, besides VLLMRAY_…, which the fixture `folder` takes away.
OTHERS = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "MODELSCOPE_API_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"),
)


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder, beside the current one."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    return folder / "vllmray"


@pytest.fixture
def nowhere(folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Docker daemon answers, and the home directory is empty."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/no.sock")
    return folder


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """A command line takes Ctrl-C over, which is pytest's own again afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
