"""Credentials for sources of models, as files that programs on nodes read, so that no environment has them."""

from __future__ import annotations

import pickle  # nosec B403 # written here, for a package that reads its login so; nothing is read
from http.cookiejar import Cookie
from urllib.parse import urlsplit

MODELSCOPE_HOST = "modelscope.cn"


def modelscope_login(token: str, endpoint: str | None) -> str:
    """The file `cookies` that `modelscope login` writes: a pickled cookie jar, whose m_session_id is the token.

    Read by modelscope_hub 0.5 (config.py, load_token) from credentials/cookies below its folder, and by older versions
    of modelscope (hub/api.py, ModelScopeConfig.get_cookies) from cookies below MODELSCOPE_CREDENTIALS_PATH. Here it
    does not expire, and is text (pickle's protocol 0).

    Args:
        endpoint: MODELSCOPE_ENDPOINT of the nodes; None for ModelScope's own.
    """
    from requests.cookies import RequestsCookieJar

    host = urlsplit(endpoint or "").hostname
    jar = RequestsCookieJar()
    jar.set_cookie(
        Cookie(
            version=0,
            name="m_session_id",
            value=token,
            port=None,
            port_specified=False,
            domain=host or f".{MODELSCOPE_HOST}",
            domain_specified=True,
            domain_initial_dot=host is None,
            path="/",
            path_specified=True,
            secure=False,
            expires=None,
            discard=False,
            comment=None,
            comment_url=None,
            rest={},
            rfc2109=False,
        )
    )
    return pickle.dumps(jar, protocol=0).decode("ascii")


def aws_credentials(key_id: str, secret: str, session_token: str | None) -> str:
    """AWS's shared credentials file with one profile, as boto3 and AWS's SDK for C++ (of Run:ai's streamer) read it.

    AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
    """
    lines = ["[default]", f"aws_access_key_id = {key_id}", f"aws_secret_access_key = {secret}"]
    return "\n".join([*lines, f"aws_session_token = {session_token}"] if session_token else lines)
