"""A container's paths in the terms of this machine."""

from __future__ import annotations

import pytest

from vllmray.hosts.native.paths import PathMap, folders_of

MAP = PathMap(
    {"/tmp/ray": "/tmp/v/1", "/vllmray": "/s/files/vllmray", "/vllmray/site": "/s/site", "/data": "/srv/data"}
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/tmp/ray", "/tmp/v/1"),
        ("--state=/tmp/ray/vllmray/engine.json", "--state=/tmp/v/1/vllmray/engine.json"),
        ("/tmp/rays", "/tmp/rays"),
        ("/var/tmp/ray", "/var/tmp/ray"),
        ("/tmp/ray-2", "/tmp/ray-2"),
        ("/tmp/ray.log", "/tmp/ray.log"),
        ("date && cat /tmp/ray/a", "date && cat /tmp/v/1/a"),
        ("/vllmray/site/x", "/s/site/x"),
        ("/vllmray/watch.py", "/s/files/vllmray/watch.py"),
        ("/usr/bin:/data:/opt", "/usr/bin:/srv/data:/opt"),
        ('{"place":"/data"}', '{"place":"/srv/data"}'),
        ("vllm/data", "vllm/data"),
        ("http://host/data", "http://host/data"),
        ("", ""),
    ],
)
def test_a_path_is_replaced_where_it_is_one(text: str, meant: str) -> None:
    assert MAP.text(text) == meant


def test_what_was_put_in_place_is_not_looked_at_again() -> None:
    assert PathMap({"/a": "/b", "/b": "/c"}).argv(("/a", "/b")) == ("/b", "/c")
    assert PathMap({}).env({"A": "/b"}) == {"A": "/b"}


def test_the_folders_of_a_path_are_named_from_the_outermost() -> None:
    assert folders_of("/vllmray/deep/file.txt") == ["/vllmray", "/vllmray/deep"]
