"""Logins as files, read by the programs that they are for."""

from __future__ import annotations

import configparser
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr

from tests.rig.hub import Model, serving
from vllmray.cluster.spec.contents import MODELSCOPE_LOGIN, Secrets
from vllmray.hub.credentials import aws_credentials, modelscope_login

TOKEN = "ms-12345-a_token"
ASK = """
import os, sys
from modelscope.hub.api import HubApi

assert "MODELSCOPE_API_TOKEN" not in os.environ
print([entry["Path"] for entry in HubApi().get_model_files("org/model")])
"""


def test_modelscopes_package_uses_the_login_in_the_file_that_variables_lead_to(tmp_path: Path) -> None:
    if importlib.util.find_spec("modelscope") is None:
        pytest.skip("modelscope is an extra")
    with serving() as hub:
        hub.models["org/model"] = Model({"config.json": b"{}"})
        hub.tokens[TOKEN] = ()
        content = SecretStr(modelscope_login(TOKEN, hub.url))
        secrets = Secrets(logins=dict.fromkeys(MODELSCOPE_LOGIN, content))
        for file in secrets.of_node():
            path = tmp_path / Path(file.path).relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        environ = {name: f"{tmp_path}{path}" for name, path in secrets.variables().items()}
        environ |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MODELSCOPE_ENDPOINT": hub.url}
        environ |= {"NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", ASK], env=environ, capture_output=True, text=True, check=True)
        assert "config.json" in done.stdout
        assert {request.authorization for request in hub.seen} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9"])
def test_the_login_is_a_cookie_of_the_hub_for_versions_that_send_it_as_one(endpoint: str | None) -> None:
    jar = pickle.loads(modelscope_login(TOKEN, endpoint).encode() + b"\n")
    assert [(cookie.name, cookie.value, cookie.is_expired()) for cookie in jar] == [("m_session_id", TOKEN, False)]
    request = requests.Request("GET", f"{endpoint or 'https://www.modelscope.cn'}/api", cookies=jar).prepare()
    assert request.headers["Cookie"] == f"m_session_id={TOKEN}"
    other = requests.Request("GET", "https://example.org/", cookies=jar).prepare()
    assert "Cookie" not in other.headers


def test_awss_file_has_one_profile_with_what_is_there() -> None:
    read = configparser.RawConfigParser()
    read.read_string(aws_credentials("AKIA1", "a/b+c=%d", "session") + "\n")
    pair = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "a/b+c=%d"}
    assert dict(read["default"]) == {**pair, "aws_session_token": "session"}
    read = configparser.RawConfigParser()
    read.read_string(aws_credentials("AKIA1", "a/b+c=%d", None) + "\n")
    assert dict(read["default"]) == pair
