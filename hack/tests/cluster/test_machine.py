"""What a machine lacks is said as a sentence, before anything is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from hack.cluster import machine
from hack.cluster.settings import ROOT, ClusterError


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="need root; run `sudo make cluster`"):
        machine.check()


def test_missing_programs_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    gone = {"clang-16", "runc", "ctr"}
    monkeypatch.setattr(shutil, "which", lambda name: None if name in gone else which(name))
    assert {"clang-16", "runc", "containerd"} <= set(machine.missing_packages())


def test_ci_installs_every_package() -> None:
    listed = (ROOT / "hack/ci-packages.txt").read_text().split()
    base = {"curl", "gcc", "git", "iproute2", "openssl", "procps", "util-linux"}
    assert set(machine.PACKAGES.values()) - base <= set(listed)


@pytest.mark.skipif(os.geteuid() != 0, reason="unsharing namespaces needs root")
def test_a_kernel_feature_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    succeeds = machine.succeeds
    monkeypatch.setattr(
        machine, "succeeds", lambda words: "overlay" not in words and succeeds(words)
    )
    assert any("overlay mounts" in lack for lack in machine.kernel_lacks())


def test_another_cluster_that_does_not_answer_is_said_to_be_that() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hack.cluster", "up"],
        cwd=ROOT,
        env=os.environ | {"KUBECONFIG": "/does/not/exist"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "The cluster of KUBECONFIG=/does/not/exist does not answer" in done.stderr
