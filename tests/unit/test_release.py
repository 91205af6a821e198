"""What is released: the wheel has all of src, and what describes the project agrees with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # as in src: it has no types of its own

REPOSITORY = Path(__file__).parents[2]
BUILT_FROM = ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
SCRIPT = re.compile(r"\b(?:scripts|\.venv/bin)/[\w-]+")
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
FORGE = {"GITHUB_SERVER_URL": "https://forge.example", "GITHUB_REPOSITORY": "someone/vllmray"}


def build(folder: Path, **environment: str) -> Path:
    """A wheel of this tree's files, without Git and without a package index."""
    tree = folder / "tree"
    tree.mkdir()
    for name in BUILT_FROM:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "_version.py"))
        else:
            shutil.copy(REPOSITORY / name, tree / name)
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
    subprocess.run(argv, cwd=tree, env=env, capture_output=True, check=True, timeout=60)
    return next(folder.glob("*.whl"))


def metadata_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def test_a_wheel_has_every_file_of_the_source_and_the_version_that_it_was_built_as(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    source = REPOSITORY / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "vllmray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("vllmray/")}
        version = archive.read("vllmray/_version.py").decode()
    assert packed == expected | {"vllmray/_version.py"}
    assert wheel.name.split("-")[1] == "0.0.0"  # no Git, so no tag
    assert version == '__version__ = "0.0.0"'
    metadata = metadata_of(wheel)
    assert "Project-URL" not in metadata
    assert metadata.endswith((REPOSITORY / "README.md").read_text())


def test_a_forge_that_builds_it_is_where_the_project_lives(tmp_path: Path) -> None:
    metadata = metadata_of(build(tmp_path, **FORGE))
    home = "https://forge.example/someone/vllmray"
    assert f"Project-URL: Source, {home}\n" in metadata
    changelog = re.search(rf"Project-URL: Changelog, {home}/blob/main/(\S+)", metadata)
    documentation = re.search(rf"Project-URL: Documentation, {home}/tree/main/(\S+)", metadata)
    assert changelog
    assert documentation
    assert (REPOSITORY / changelog[1]).is_file()
    assert (REPOSITORY / documentation[1]).is_dir()
    readme = metadata.partition("\n\n")[2]
    to_files = re.findall(r"\]\((?!\w+:|#)([^)]+)\)", (REPOSITORY / "README.md").read_text())
    assert len(to_files) > 5
    assert re.findall(r"\]\((?!\w+:|#)", readme) == []
    for path in to_files:
        assert (REPOSITORY / path).exists()
        assert re.search(rf"\]\({home}/(?:blob|raw)/main/{re.escape(path)}\)", readme)


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, REPOSITORY / ".pre-commit-config.yaml"], ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_what_a_forge_and_pre_commit_call_is_there(path: Path) -> None:
    called = set(SCRIPT.findall(path.read_text()))
    assert called
    venv = Path(sys.executable).parent
    for name in called:
        program = venv / Path(name).name if name.startswith(".venv") else REPOSITORY / name
        assert os.access(program, os.X_OK), name


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github/workflows" / name).read_text())
    return loaded


def test_the_pythons_that_are_tested_are_those_that_the_package_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert workflow("check.yml")["jobs"]["unit"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]},<3.{int(named[-1].split('.')[1]) + 1}"


def test_only_the_job_that_publishes_may_say_who_it_is_and_no_action_is_taken_by_a_tag() -> None:
    allowed = {
        (path.name, job)
        for path in WORKFLOWS
        for job, content in workflow(path.name)["jobs"].items()
        if "write" in content["permissions"].values()
    }
    assert allowed == {("release.yml", "publish")}
    assert all(workflow(path.name)["permissions"] == {} for path in WORKFLOWS)
    uses = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not re.search(r"@[0-9a-f]{40} # v\d", line)] == []


def test_the_changes_are_in_the_form_of_keep_a_changelog() -> None:
    text = (REPOSITORY / "CHANGES.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert [each for each in releases[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", each)] == []
    for release in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.*)$", release, re.MULTILINE)
        assert sections
        assert len(sections) == len(set(sections))
        assert set(sections) <= set(SECTIONS)
