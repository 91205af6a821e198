"""Images from Dockerfiles, on real daemons."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import User, Users, nothing_left
from tests.e2e.images import MB, small_image
from tests.rig.daemon import daemon
from tests.rig.hosts import RUN_FOLDER, Rig, run
from tests.rig.settings import ENGINE_FLAGS
from vllmray.errors import HostError
from vllmray.hosts.docker.host import DockerHost


def fake_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with nothing but its metadata in it, which is all that pip installs and that an image is asked for."""
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {"METADATA": metadata, "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{about}/{file}", text)
        wheel.writestr(f"{about}/RECORD", "".join(f"{about}/{file},,\n" for file in (*files, "RECORD")))


def images_of(user: User) -> set[str]:
    """Not a list: the daemon's order of images made in the same second changes from one answer to the next."""
    return set(user.host.docker("images", "--quiet").split())


@contextmanager
def removed_after(user: User, *names: str) -> Iterator[None]:
    try:
        yield
    finally:
        for name in names:
            for image in user.host.docker("images", "--quiet", name).split():
                user.host.docker("rmi", "--force", image, check=False)


def test_the_maintained_dockerfile_adds_pinned_versions_to_a_base_with_ray(users: Users, tmp_path: Path) -> None:
    someone = users(1)
    (tmp_path / "wheels").mkdir()
    fake_wheel(tmp_path / "wheels", "vllm", "9.9.1")
    fake_wheel(tmp_path / "wheels", "extra", "1.0")
    (tmp_path / "wheels/Dockerfile").write_text(
        f"FROM {someone.settings['VLLMRAY_IMAGE']}\nCOPY *.whl /wheels/\n"
        "RUN printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' > /etc/pip.conf\nUSER 1000\n"
    )
    base, mine = "vllmray-test-base:1", "vllmray-test-mine:1"
    with removed_after(someone, mine, base):
        someone.host.docker("build", "--tag", base, str(tmp_path / "wheels"))
        named = ("--base", base, "--vllm-version", "9.9.1")
        more = ("--pip", "extra==1.0", "--tag", mine)
        done = someone.vllmray("image", "build", "--accelerator", "nvidia", *named, *more)
        assert (done.returncode, done.stdout) == (0, f"{mine}\n")
        assert f"vllmray up --role head --image {mine}" in done.stderr
        facts = json.loads(someone.vllmray("image", "inspect", mine, "--json").stdout)["data"]
        assert (facts["versions"]["vllm"], facts["versions"]["ray"]) == ("9.9.1", "2.60.0")
        assert "extra" in someone.host.docker("run", "--rm", mine, "pip", "list")

        no_such = someone.vllmray("image", "build", "--accelerator", "nvidia", *named, "--ray-version", "1.2.3")
        assert no_such.returncode == 3
        assert "No matching distribution found for ray" in no_such.stderr


def test_the_cluster_file_has_an_image_built_when_it_is_needed(users: Users) -> None:
    someone = users(1)
    base = someone.settings.pop("VLLMRAY_IMAGE")
    someone.write_settings()
    (someone.folder / "Dockerfile").write_text(f"FROM {base}\nCOPY words /words\nRUN cat /words\n")
    (someone.folder / "words").write_text("from the context\n")
    (someone.folder / "vllmray.toml").write_text('image = { build = "Dockerfile" }\n')
    with removed_after(someone, "vllmray-image"):
        head = someone.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS)
        assert head.returncode == 0
        assert "building " in head.stderr
        (image,) = {container["image"] for container in someone.status()["containers"]}
        assert image.startswith("vllmray-image:")
        assert someone.host.docker("exec", "vllmray-head", "cat", "/words") == "from the context\n"
        again = someone.vllmray("up", "--role", "head", "--no-wait", *ENGINE_FLAGS)
        assert again.stderr.count("running already") == 2
        assert someone.vllmray("down").returncode == 0


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("RUN echo the step says so && false", "the step says so"),
        ("RUN --mount=type=tmpfs,target=/x echo the step says so && false", "the step says so"),
        ("NONSENSE here", "unknown instruction"),
        ("COPY no-such-file /", "no-such-file"),
    ],
)
def test_a_wrong_dockerfile_shows_the_failing_steps_words_and_leaves_no_image(
    users: Users, steps: str, words: str
) -> None:
    someone = users(1)
    (someone.folder / "Dockerfile").write_text(f"FROM {someone.settings['VLLMRAY_IMAGE']}\n{steps}\n")
    before = images_of(someone)
    done = someone.vllmray("image", "build", "-f", "Dockerfile", "--tag", "vllmray-test-wrong:1")
    assert done.returncode == 3
    assert words in done.stderr
    assert images_of(someone) == before
    assert nothing_left(someone) == []


@pytest.fixture
def small(rig: Rig) -> Iterator[SmallDaemon]:  # its folder is the rig's
    """A daemon with 64 MB of disk."""
    folder = RUN_FOLDER / "small"  # a short name: a socket's is limited
    (folder / "docker").mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder / "docker"))
    with daemon(folder) as address:
        yield SmallDaemon(address, folder / "docker")
    shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class SmallDaemon:
    address: str
    data: Path

    def images(self) -> str:
        return run("docker", "-H", self.address, "images", "--all", "--quiet").stdout

    def used(self) -> int:
        """MB."""
        return int(run("du", "-sm", str(self.data)).stdout.split()[0])


def test_a_full_disk_is_said_and_a_copy_leaves_nothing_there(users: Users, small: SmallDaemon, tmp_path: Path) -> None:
    someone = users(1)
    name = "vllmray-test-copied:1"
    with small_image(someone.host, name, tmp_path / "image", 100 * MB):
        done = someone.vllmray("image", "copy", name, "--to", small.address)
        assert done.returncode == 3
        assert f"was not copied to {small.address}" in done.stderr
        assert "no space left on device" in done.stderr
        assert "Free some disk space" in done.stderr
    assert small.images() == ""
    assert small.used() < 10


def test_a_full_disk_is_said_and_a_build_leaves_nothing_there(users: Users, small: SmallDaemon, tmp_path: Path) -> None:
    someone = users(1)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    with (tmp_path / "files/file").open("wb") as file:
        file.truncate(100 * MB)
    dockerfile = str(tmp_path / "files/Dockerfile")
    done = someone.vllmray("image", "build", "--host", small.address, "-f", dockerfile, "--tag", "mine:1")
    assert done.returncode == 3
    assert "no space left on device" in done.stderr
    assert "Free some disk space" in done.stderr
    assert small.images() == ""
    assert small.used() < 10


def test_a_user_who_may_not_use_the_socket_is_told_so(
    clean: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    address = clean.host(1).docker_host
    DockerHost(address).close()  # everything that is imported only when it is needed has been
    os.seteuid(65534)
    try:
        with pytest.raises(HostError) as caught:
            DockerHost(address)
    finally:
        os.seteuid(0)
    assert caught.value.exit_code == 3
    assert "Run as a user who may use that Docker socket" in str(caught.value.hint)
