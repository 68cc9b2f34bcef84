from __future__ import annotations

import pytest

from synapse_gateway import cli

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--apply"], "say where: --namespace NAMESPACE or --all-namespaces"),
        (["--undo"], "say where: --namespace NAMESPACE or --all-namespaces"),
        (["-A", "-n", "a"], "either --namespace or --all-namespaces"),
        (["--gateway-service", "ollama"], "must be NAME.NAMESPACE (got 'ollama')"),
        (["--instance-url", "a/b"], "--instance-url must end in a URL"),
        (["--gateway-url", "here:80"], "--gateway-url must end in a URL"),
        (["--image", "("], "--image must be a regular expression"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(
    arguments: list[str], sentence: str, capsys: Output
) -> None:
    assert cli.main(["decommission", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--apply", "--undo"], ["--drain", "-1"], ["--drain", "soon"], ["--output", "xml"]],
)
def test_arguments_that_cannot_be_are_refused(arguments: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["decommission", *arguments])
    assert ended.value.code == 2
    assert "usage: synapse decommission" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named(capsys: Output, tmp_path: object) -> None:
    assert cli.main(["decommission", "--kubeconfig", f"{tmp_path}/none"]) == 1
    assert f"{tmp_path}/none: No such file" in capsys.readouterr().err
