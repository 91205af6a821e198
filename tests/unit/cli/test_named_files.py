"""Files named by arguments after --, and folders of links: what reaches the containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.test_cli import exit_code
from tests.unit.cli.test_pasted import settings_of
from tests.unit.cli.test_plan import DUMMY, make_model
from tests.unit.cluster.spec.test_containers import CONTENTS
from tests.unit.support import NODE, config, engine_spec, head_spec, worker_spec
from vllmray.cli.named_files import with_named_files
from vllmray.cluster.probe.model import Look, look_there
from vllmray.cluster.spec.commands import worker_command
from vllmray.cluster.spec.mounts import check_links
from vllmray.config.models import ClusterConfig
from vllmray.errors import ConfigError
from vllmray.hosts.base import ContainerSpec
from vllmray.payload.probes.model_folder import links_out_of, look

HERE, THERE = "unix:///var/run/docker.sock", "ssh://gpu2"


def settled(*args: str, address: str = HERE, **settings: object) -> ClusterConfig:
    return with_named_files(config(vllm_args=args, head_ip="10.0.0.1", **settings), address)


def refused(*args: str, address: str = HERE, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        settled(*args, address=address, **settings)
    return str(caught.value.details)


def read_only(spec: ContainerSpec) -> list[str]:
    return [mount.target for mount in spec.mounts if mount.read_only]


def specs(found: ClusterConfig) -> tuple[ContainerSpec, ContainerSpec, ContainerSpec]:
    return head_spec(found, NODE, CONTENTS), engine_spec(found, NODE, CONTENTS), worker_spec(found, NODE, CONTENTS)


def test_a_file_is_in_the_engines_container_alone_at_its_absolute_path(folder: Path) -> None:
    (folder / "x.jinja").write_text("{{ 1 }}")
    found = settled("--chat-template", "./x.jinja")
    assert found.vllm_args == ("--chat-template", f"{folder}/x.jinja")
    head, engine, worker = specs(found)
    assert (read_only(head), read_only(engine), read_only(worker)) == ([], [f"{folder}/x.jinja"], [])
    assert f"{folder}/x.jinja" in engine.argv


def test_a_lora_folder_is_on_every_node_and_in_the_workers_command(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
    found = settled("--lora-modules", "a=one", '{"name": "b", "path": "./two"}', "--tokenizer", "org/name")
    assert found.vllm_args == (
        *("--lora-modules", f"a={folder}/one", f'{{"name": "b", "path": "{folder}/two"}}'),
        *("--tokenizer", "org/name"),
    )
    for spec in specs(found):
        assert read_only(spec) == [f"{folder}/one", f"{folder}/two"]
    assert settings_of(worker_command(found)).volumes == found.volumes


def test_what_a_volume_or_the_image_has_is_left_as_it_is() -> None:
    example = "/vllm-workspace/examples/tool_chat_template_hermes.jinja"
    args = ("--chat-template", example, "--tool-parser-plugin", "/t/p.py")
    for address in (HERE, THERE):
        found = settled(*args, address=address, volumes=("/host:/t",))
        assert found.vllm_args == args
        assert read_only(specs(found)[1]) == ["/t"]


def test_a_file_that_is_not_here_is_refused() -> None:
    said = refused("--chat-template", "no.jinja", "--lora-modules", "a=/no/folder")
    assert "--chat-template after --: no.jinja is not on this machine" in said
    assert "--lora-modules after --: /no/folder is not on this machine" in said
    assert "--volume" in said


def test_for_another_machine_the_volume_that_would_do_is_said(folder: Path) -> None:
    (folder / "x.jinja").touch()
    said = refused("--chat-template", "x.jinja", address=THERE)
    assert "x.jinja is not on ssh://gpu2; copy it there, and give --volume /FOLDER/x.jinja:/FOLDER/x.jinja and" in said
    said = refused("--tool-parser-plugin", "/p/q.py", address=THERE)
    assert said.endswith("give --volume /p/q.py:/p/q.py")


def test_processes_of_this_machine_need_absolute_paths_alone(folder: Path) -> None:
    (folder / "draft").mkdir()
    (folder / "x").touch()
    found = settled("-sc.model=draft", "--chat-template", "x", runtime="native", address="native")
    assert found.vllm_args == (f"-sc.model={folder}/draft", "--chat-template", f"{folder}/x")
    assert found.volumes == ()


def snapshot(folder: Path) -> Path:
    """A model as the hub's cache has it."""
    repository = folder / "hub" / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "abc").write_text("{}")
    made = repository / "snapshots" / ("0" * 40)
    made.mkdir(parents=True)
    (made / "config.json").symlink_to("../../blobs/abc")
    return made


def test_a_snapshot_is_mounted_with_the_blobs_that_its_links_lead_to(folder: Path) -> None:
    made = snapshot(folder)
    assert links_out_of(made) == [f"{folder}/hub/models--org--name/blobs"]
    wanted = config(model=str(made), head_ip="10.0.0.1")
    check_links(wanted, links_out_of(made))
    for spec in specs(wanted):
        assert read_only(spec) == [f"{folder}/hub/models--org--name"]
    assert f"--model={made}" in specs(wanted)[1].argv
    lora = settled("--lora-modules", f"a={made}")
    assert lora.volumes == (f"{folder}/hub/models--org--name:{folder}/hub/models--org--name",)


def test_any_other_folder_of_links_is_refused_unless_a_volume_has_what_they_lead_to(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real" / "config.json").write_text("{}")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").symlink_to(f"{folder}/real/config.json")
    (folder / "model" / "own").symlink_to("config.json")
    answer = look(folder / "model")
    assert (answer["outside"], answer["problem"]) == ([f"{folder}/real"], None)
    seen = Look(None, outside=answer["outside"])
    with pytest.raises(ConfigError) as caught:
        look_there(None, config(model=f"{folder}/model"), seen, None)  # type: ignore[arg-type]  # neither is asked
    assert f"give --volume {folder}/real:{folder}/real" in str(caught.value.details)
    for fine in ({"volumes": (f"{folder}/real:{folder}/real",)}, {"runtime": "native"}):
        assert look_there(None, config(model=f"{folder}/model", **fine), seen, None) is None  # type: ignore[arg-type]  # as above
    assert f"--volume {folder}/real" in refused("--lora-modules", f"a={folder}/model")


def test_the_dry_run_shows_the_file_in_the_engines_container(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.jinja").touch()
    argv = (
        "up",
        "--role",
        "head",
        "--dry-run=commands",
        "--no-model-check",
        "--node-ip",
        "127.0.0.1",
        "--host",
        "unix:///s",
    )
    assert exit_code(*argv, "--", "--chat-template", "x.jinja") == 0
    said = capsys.readouterr().out
    assert said.count(f"type=bind,source={folder}/x.jinja,target={folder}/x.jinja,readonly") == 1
    assert exit_code(*argv[:-1], "tcp://192.0.2.1:1", "--", "--chat-template", "x.jinja") == 2
    assert "is not on tcp://192.0.2.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["docker", "native"])
def test_the_dry_run_refuses_a_folder_of_links_as_up_does(
    folder: Path, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    made = make_model(folder, "llama-3.1-70b")
    (folder / "model").mkdir()
    for each in made.iterdir():
        (folder / "model" / each.name).symlink_to(each)
    argv = ("up", "--role", "head", "--dry-run=commands", "--node-ip", "127.0.0.1", "--model", f"{folder}/model")
    refused = runtime == "docker"
    assert exit_code(*argv, "--runtime", runtime, *DUMMY) == (2 if refused else 0)
    assert (f"give --volume {made}:{made}" in capsys.readouterr().err) is refused
