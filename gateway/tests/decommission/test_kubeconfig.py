from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.decommission.errors import Refusal
from synapse_gateway.decommission.kubeconfig import find_cluster, from_kubeconfig, from_pod

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, cluster: Any = None, user: Any = None, **more: Any) -> Path:
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster or {"server": "http://127.0.0.1:1/"}}],
        "users": [{"name": "u", "user": user or {}}],
        **more,
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("user", "authorization"),
    [
        ({}, None),
        ({"token": "abc"}, "Bearer abc"),
        ({"tokenFile": "token"}, "Bearer from-file"),
        ({"username": "u", "password": "p"}, f"Basic {base64.b64encode(b'u:p').decode()}"),
    ],
)
def test_how_requests_are_authorized(
    tmp_path: Path, user: dict[str, str], authorization: str | None
) -> None:
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    cluster = from_kubeconfig(write(tmp_path / "config", user=user))
    assert cluster.credentials.authorization() == authorization
    assert cluster.url == "http://127.0.0.1:1"


def test_a_token_file_is_read_again_because_it_is_renewed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first", encoding="utf-8")
    cluster = from_kubeconfig(write(tmp_path / "config", user={"tokenFile": "token"}))
    token.write_text("second", encoding="utf-8")
    assert cluster.credentials.authorization() == "Bearer second"


def plugin(folder: Path, program: str) -> dict[str, Any]:
    (folder / "plugin.py").write_text(program, encoding="utf-8")
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(folder / "plugin.py")],
            "env": [{"name": "REGION", "value": "north"}],
        }
    }


TELLS = """
import json, os, pathlib
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
runs = pathlib.Path(__file__).with_name("runs")
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
token = os.environ["REGION"] + "-" + str(len(runs.read_text()))
print(json.dumps({**asked, "status": {"token": token}}))
"""


def test_a_plugin_is_asked_and_asked_again_when_its_token_has_ended(tmp_path: Path) -> None:
    cluster = from_kubeconfig(write(tmp_path / "config", user=plugin(tmp_path, TELLS)))
    assert cluster.credentials.authorization() == "Bearer north-1"
    assert cluster.renew()
    assert cluster.credentials.authorization() == "Bearer north-2"


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "print('no')", "print('{}')"])
def test_a_plugin_that_fails_is_named(tmp_path: Path, program: str) -> None:
    with pytest.raises(Refusal, match="gave no credential"):
        from_kubeconfig(write(tmp_path / "config", user=plugin(tmp_path, program)))


def test_a_plugin_that_is_not_there_says_how_to_install_it(tmp_path: Path) -> None:
    user = {"exec": {"command": "no-such-plugin", "installHint": "apt install it"}}
    with pytest.raises(Refusal, match="'no-such-plugin' is not there; apt install it"):
        from_kubeconfig(write(tmp_path / "config", user=user))


def test_a_context_is_chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "config")
    with pytest.raises(Refusal, match=r"contexts has no 'there' \(there: here\)"):
        from_kubeconfig(path, "there")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"current-context": None}, "has no current-context; choose one with --context NAME"),
        ({"clusters": []}, r"clusters has no 'c' \(there: none\)"),
        ({"cluster": {"server": "c:1"}}, "server must be a URL"),
        ({"cluster": {"server": "https://c", "proxy-url": "x"}}, "proxy-url is not supported"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "auth-provider is not supported"),
        (
            {"cluster": {"server": "https://c", "certificate-authority-data": "?"}},
            "certificate-authority-data must be PEM in base64",
        ),
        (
            {"cluster": {"server": "https://c", "certificate-authority": "gone.crt"}},
            "gone.crt: No such file",
        ),
        (
            {"cluster": {"server": "https://c", "certificate-authority-data": "bm8="}},
            "certificate-authority must be a certificate in PEM",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refusal, match=sentence):
        from_kubeconfig(write(tmp_path / "config", **changes))


@pytest.mark.parametrize("text", ["a: [", "- list"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match=r"config: (not YAML|must be a mapping)"):
        from_kubeconfig(tmp_path / "config")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    named = f"{tmp_path}/none:{write(tmp_path / 'config')}"
    assert find_cluster(None, None, {"KUBECONFIG": named}).url == "http://127.0.0.1:1"


def test_without_a_cluster_it_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="give --kubeconfig FILE"):
        find_cluster(None, None, {"KUBECONFIG": str(tmp_path / "none")})


def test_a_pod_without_an_account_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="automountServiceAccountToken"):
        from_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
