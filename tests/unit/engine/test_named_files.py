"""Which files and folders arguments of the vLLM server name."""

from __future__ import annotations

import pytest

from vllmray.engine.named_files import Named, named_files, with_paths


def moved(named: Named) -> str:
    return f"/moved/{named.path.strip('./')}"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--chat-template", "./x.jinja"), ("--chat-template", "/moved/x.jinja")),
        (("--chat_templ=x.jinja",), ("--chat_templ=x.jinja",)),  # ambiguous: vLLM refuses it
        (("--chat_template=x.jinja",), ("--chat_template=/moved/x.jinja",)),
        (("--tool-parser-p", "p.py", "--dtype", "half"), ("--tool-parser-plugin", "/moved/p.py", "--dtype", "half")),
        (("--lora-modules", "a=./x", "b=./y=z"), ("--lora-modules", "a=/moved/x", "b=/moved/y=z")),
        (
            ("--lora-modules", '{"name": "a", "path": "./x", "base_model_name": "./b"}'),
            ("--lora-modules", '{"name": "a", "path": "/moved/x", "base_model_name": "./b"}'),
        ),
        (("-sc", '{"model": "./draft", "num": 1}'), ("--speculative-config", '{"model": "/moved/draft", "num": 1}')),
        (("--speculative-config.model", "./draft"), ("--speculative-config.model", "/moved/draft")),
        (("-sc.model=./draft",), ("-sc.model=/moved/draft",)),
        (("--default-mm-loras", '{"image": "./i"}'), ("--default-mm-loras", '{"image": "/moved/i"}')),
    ],
)
def test_each_path_is_changed_where_it_stands(args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert with_paths(args, moved) == expected


@pytest.mark.parametrize(
    "args",
    [
        ("--chat-template", "{{ messages }}"),
        ("--chat-template", "line\nline"),
        ("--served-model-name", "./x"),
        ("-sc", '{"method": "ngram"}'),
        ("-sc", "no json"),
        ("--chat-template-content-format", "auto"),
    ],
)
def test_what_is_no_file_is_not_taken_for_one(args: tuple[str, ...]) -> None:
    assert named_files(args) == []
    assert with_paths(args, moved) == args


def test_what_workers_read_too_is_told_apart() -> None:
    args = ("--chat-template", "/x", "--tokenizer", "org/name", "--lora-modules", "a=/l")
    found = [(named.flag, named.path, named.of_every_node, named.looks_like_a_path) for named in named_files(args)]
    assert found == [
        ("--chat-template", "/x", False, True),
        ("--tokenizer", "org/name", True, False),
        ("--lora-modules", "/l", True, True),
    ]
