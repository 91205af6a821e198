"""An image without Ray: added once, the same on every host, or an error with the lines to do it by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cluster.test_up import READY, names
from tests.unit.support import RecordingReporter, config, good_host, image_answer
from vllmray.cluster.run import UpOptions
from vllmray.cluster.up import up_head
from vllmray.errors import HostError
from vllmray.images.recipe import RAY_REQUIREMENT, derived_dockerfile, derived_name, lacks_wheel

DERIVED = derived_name("sha256:image:1")


def lacks_ray_unless_derived(image: str) -> dict[str, Any]:
    return image_answer() if image == DERIVED else image_answer(ray=None)


def test_ray_is_added_as_a_step_and_nodes_run_in_the_image_that_has_it(tmp_path: Path) -> None:
    host, reporter = good_host(*READY, holds=lacks_ray_unless_derived), RecordingReporter()
    outcome = up_head(host, config(), UpOptions(cache=tmp_path), reporter)
    assert outcome.ready
    assert f"build {DERIVED}" in host.calls
    assert {record.spec.image for record in host.records.values()} == {DERIVED}
    assert f"image with Ray {DERIVED}: image:1 has no Ray: adding {RAY_REQUIREMENT}" in reporter.lines
    # The other hosts add it themselves: what is made here is not to be had anywhere else.
    assert "--image image:1" in outcome.worker_command


def test_what_was_made_is_found_the_next_time(tmp_path: Path) -> None:
    host = good_host(*READY, holds=lacks_ray_unless_derived)
    up_head(host, config(), UpOptions(cache=tmp_path), RecordingReporter())
    reporter = RecordingReporter()
    up_head(host, config(), UpOptions(cache=tmp_path), reporter)
    assert host.calls.count(f"build {DERIVED}") == 1
    assert f"image with Ray {DERIVED}: = found" in reporter.lines
    assert "Ray head: = running already" in reporter.lines


def test_an_image_with_ray_is_left_as_it_is(tmp_path: Path) -> None:
    host = good_host(*READY)
    up_head(host, config(), UpOptions(cache=tmp_path), RecordingReporter())
    assert not [call for call in host.calls if call.startswith("build")]


def test_no_derive_is_an_error_with_the_two_lines_that_do_it_by_hand() -> None:
    host = good_host(*READY, holds=lacks_ray_unless_derived)
    with pytest.raises(HostError, match="image image:1 has no Ray") as caught:
        up_head(host, config(), UpOptions(derive=False), RecordingReporter())
    assert "FROM image:1" in str(caught.value.hint)
    assert f"uv pip install --system '{RAY_REQUIREMENT}'" in str(caught.value.hint)
    assert "--image vllm-ray" in str(caught.value.hint)
    assert names(host) == []


@pytest.mark.parametrize("derive", [True, False])
def test_an_image_whose_python_has_no_wheel_of_ray_is_refused_before_anything_is_built(derive: bool) -> None:
    host = good_host(*READY, holds=lambda image: image_answer(ray=None, python="3.15.0"))
    with pytest.raises(HostError) as caught:
        up_head(host, config(), UpOptions(derive=derive), RecordingReporter())
    assert caught.value.message == (
        "fake://host: image image:1 has no Ray, and Ray 2.60.0 has no wheel for Python 3.15.0, only for 3.10 to 3.14"
    )
    assert "--image" in str(caught.value.hint)
    assert "--no-derive" not in str(caught.value.hint)
    assert not [call for call in host.calls if call.startswith("build")]
    assert names(host) == []


def test_an_image_with_a_ray_of_its_own_is_taken_whatever_its_python() -> None:
    host = good_host(*READY, holds=lambda image: image_answer(python="3.15.0"))
    assert up_head(host, config(), UpOptions(), RecordingReporter()).ready


@pytest.mark.parametrize(
    ("python", "fits"),
    [("3.9.25", False), ("3.10.0", True), ("3.14.8", True), ("3.15.0", False), ("2.7", False), ("", True)],
)
def test_whether_ray_can_be_installed_for_a_python(python: str, fits: bool) -> None:
    assert (lacks_wheel(python) is None) is fits


def test_the_name_tells_the_base_and_the_version_of_ray() -> None:
    assert derived_name("sha256:a") == derived_name("sha256:a")
    assert len({derived_name("sha256:a"), derived_name("sha256:b"), derived_name("sha256:a", "ray==2.61.0")}) == 3


def test_the_user_of_the_base_is_put_back() -> None:
    as_root = derived_dockerfile("vllm@sha256:abc", "")
    assert as_root.splitlines()[0] == "FROM vllm@sha256:abc"
    assert "USER" not in as_root
    assert derived_dockerfile("sha256:abc", "2000:0").splitlines()[1::2] == ["USER root", "USER 2000:0"]


def test_the_base_is_named_by_its_digest_where_it_has_one(tmp_path: Path) -> None:
    host = good_host(*READY, holds=lacks_ray_unless_derived)
    host.images["image:1"] = replace(host.images["image:1"], digests=("registry/vllm@sha256:abc",))
    up_head(host, config(), UpOptions(cache=tmp_path), RecordingReporter())
    assert host.builds[DERIVED].dockerfile.startswith("FROM registry/vllm@sha256:abc\n")
