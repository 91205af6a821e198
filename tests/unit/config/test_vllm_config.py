"""vLLM's --config FILE, read before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmray.config.vllm_config import with_config_file
from vllmray.errors import ConfigError

FILE = """\
max_num_seqs: 8
enforce-eager: true
enable-prefix-caching: false
a-switch-of-another-version: false
served-model-name: [a, b c]
speculative-config:
  model: org/draft
"""


def written(folder: Path, text: str, name: str = "engine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("form", [("--config", "FILE"), ("--config=FILE",)])
def test_the_flags_of_the_file_come_before_those_that_are_typed(folder: Path, form: tuple[str, ...]) -> None:
    path = written(folder, FILE)
    typed = ("--max-num-seqs", "4", *(word.replace("FILE", path) for word in form), "--dtype", "half")
    assert with_config_file(typed) == (
        *("--max_num_seqs", "8", "--enforce-eager", "--no-enable-prefix-caching"),
        *("--served-model-name", "a", "b c", "--speculative-config", '{"model": "org/draft"}'),
        *("--max-num-seqs", "4", "--dtype", "half"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("headless: true", "--headless starts an engine without an endpoint"),
        ("tensor-parallel-size: 4", "--tensor-parallel-size is set by vllmray itself"),
        ("data_parallel_size: 2", "multiplies the GPUs"),
        ("port: 9\nuds: /s", "--uds replaces the endpoint's port with a Unix socket"),
    ],
)
def test_a_flag_that_is_refused_is_refused_in_the_file_too(folder: Path, text: str, said: str) -> None:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        with_config_file(("--config", path))
    assert said in str(caught.value.details)
    assert path in str(caught.value.details)


@pytest.mark.parametrize(("text", "name"), [("a: [", "x.yaml"), ("- a", "x.yml"), ("a: 1", "x.toml"), ("", "x.yaml")])
def test_a_file_that_can_not_be_read_is_an_error_that_names_it(folder: Path, text: str, name: str) -> None:
    path = written(folder, text, name)
    with pytest.raises(ConfigError, match=name):
        with_config_file(("--config", path))


def test_a_file_that_is_not_there_and_two_files_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match="can't read"):
        with_config_file(("--config", f"{folder}/no.yaml"))
    with pytest.raises(ConfigError, match="give exactly one file"):
        with_config_file(("--config", "a.yaml", "--config", "b.yaml"))
    assert with_config_file(("--dtype", "half")) == ("--dtype", "half")
