"""Argo CD, and a Git repository that it can read.

In the cluster of `make cluster` Argo CD is added if it is missing; elsewhere it
has to be there. The repository is a pod of its own: whoever may run kubectl can push into it.
"""

from __future__ import annotations

import sys
from string import Template

from hack.argocd.kube import NAMESPACE, apply, command, in_laboratory, kubectl, works
from hack.cluster.settings import ROOT, ClusterError
from hack.cluster.shell import eventually, run

GIT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: proof-git, labels: {app: proof-git}}
spec:
  selector: {matchLabels: {app: proof-git}}
  template:
    metadata: {labels: {app: proof-git}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 999, fsGroup: 999}
      containers:
        - name: git
          image: $image
          command: [sh, -c]
          args:
            - git init --quiet --bare --initial-branch=main /srv/synapse.git &&
              exec git daemon --export-all --base-path=/srv --reuseaddr --informative-errors
          readinessProbe: {tcpSocket: {port: 9418}, periodSeconds: 1}
          volumeMounts: [{name: srv, mountPath: /srv}]
      volumes: [{name: srv, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: proof-git}
spec: {selector: {app: proof-git}, ports: [{port: 9418}]}
"""
REPOSITORY = f"git://proof-git.{NAMESPACE}.svc/synapse.git"


def push_address() -> str:
    """Git's address of the repository for who may run kubectl: its protocol over `exec`."""
    words = [*command(), "--namespace", NAMESPACE, "exec", "--stdin", "deployment/proof-git", "--"]
    return "ext::" + " ".join([*words, "git-receive-pack", "/srv/synapse.git"])


def install() -> None:
    """Bring Argo CD and the repository up, with the settings that the tree wants.

    Raises:
        ClusterError: When they do not come up, or the cluster is somebody else's and has none.
    """
    controller = "statefulset/argocd-application-controller"
    if not works("get", "--namespace", NAMESPACE, controller):
        if not in_laboratory():
            raise ClusterError(
                f"there is no Argo CD in the namespace {NAMESPACE}; install it first"
            )
        run([sys.executable, "-m", "hack.cluster", "add", "argocd"], cwd=ROOT)
    settings = ROOT / "gitops" / "argocd" / "argocd-cm.yaml"
    kubectl(
        *("patch", "--namespace", NAMESPACE, "configmap", "argocd-cm"),
        *("--patch-file", str(settings)),
    )
    image = kubectl(
        *("get", "--namespace", NAMESPACE, "deployment/argocd-repo-server", "--output"),
        "jsonpath={.spec.template.spec.containers[0].image}",
    )
    apply(Template(GIT).substitute(image=image))
    eventually(
        "the Git repository is ready",
        lambda: works(
            *("rollout", "status", "--namespace", NAMESPACE, "deployment/proof-git"),
            "--timeout=1s",
        ),
        120,
        lambda: kubectl("get", "pods,events", "--namespace", NAMESPACE),
    )


def remove() -> None:
    """Take the repository away; Argo CD stays."""
    kubectl(
        "delete", "--namespace", NAMESPACE, "deployment,service", "proof-git", "--ignore-not-found"
    )
