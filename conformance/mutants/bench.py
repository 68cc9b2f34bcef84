"""Breaks a release in one way, and puts it back."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import yaml

from conformance.suite.release import GATEWAY
from conformance.suite.replicas import await_replicas, reloads, write_config
from conformance.suite.timeouts import CONFIG_TAKEN, eventually
from synapse_gateway.decommission.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from conformance.suite.cluster import Object
    from conformance.suite.session import Session

PATCHED = "conformance-mutant"
MOUNT = "/mutant"
TRIES = 5


class Bench:
    """What a defect is made with; whatever it changes is put back at the end, the last first.

    Args:
        deployment: Where.
    """

    def __init__(self, deployment: Session) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster
        self._back = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._back.close()

    def delete(self, kind: str, name: str) -> None:
        """Delete an object of the release."""
        found = self.cluster.get(kind, name)
        self.cluster.delete(kind, name)
        self._back.callback(self.cluster.create, {**found, "kind": kind})

    def add(self, thing: Object) -> None:
        """Add an object to the release's namespace."""
        thing["metadata"]["namespace"] = self.cluster.namespace
        self.cluster.apply(thing)
        self._back.callback(self.cluster.delete, thing["kind"], thing["metadata"]["name"])

    def edit(self, kind: str, name: str, change: Callable[[Object], None]) -> None:
        """Change an object of the release."""
        before = self._write(kind, name, change)

        def restore(thing: Object) -> None:
            for part in ("spec", "data"):
                if part in before:
                    thing[part] = before[part]

        self._back.callback(self._write, kind, name, restore)

    def _write(self, kind: str, name: str, change: Callable[[Object], None]) -> Object:
        """Write an object anew, and return it as it was."""
        for left in reversed(range(TRIES)):
            found = self.cluster.get(kind, name)
            changed = copy.deepcopy(found)
            change(changed)
            try:
                self.cluster.replace(kind, changed)
            except KubeError as error:
                if error.status != 409 or not left:  # a controller wrote its status meanwhile
                    raise
            else:
                return found
        raise AssertionError("unreachable")

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the gateway's configuration, which every replica takes over."""
        data = self.cluster.get("ConfigMap", GATEWAY)["data"]
        config = yaml.safe_load(data["backends.yaml"])
        change(config)
        self._back.callback(self._take, data)
        self._take({**data, "backends.yaml": yaml.safe_dump(config)})

    def _take(self, data: dict[str, str]) -> None:
        before = reloads(self.deployment, "ok")
        count = len(await_replicas(self.cluster))
        write_config(self.cluster, data)
        eventually(
            "every replica has the configuration",
            lambda: reloads(self.deployment, "ok") >= before + count,
            CONFIG_TAKEN,
        )

    def gateway(self, change: Callable[[Object], None]) -> None:
        """Change the pod template of the gateway, and wait until every replica is made from it."""
        self._back.callback(self._rolled_out)  # after the template is as it was
        self.edit("Deployment", GATEWAY, lambda thing: change(thing["spec"]["template"]["spec"]))
        self._rolled_out()

    def _rolled_out(self) -> None:
        def look() -> bool:
            found = self.cluster.get("Deployment", GATEWAY)
            status, wanted = found["status"], found["spec"]["replicas"]
            return bool(
                status["observedGeneration"] >= found["metadata"]["generation"]
                and status.get("updatedReplicas") == wanted
                and status.get("replicas") == wanted
                and status.get("readyReplicas") == wanted
            )

        eventually("the gateway is rolled out", look, CONFIG_TAKEN * 2)

    def code(self, script: str) -> None:
        """Have the gateway run a script of ours as it starts, to spoil its code."""
        data = {"sitecustomize.py": script}
        self.add({"kind": "ConfigMap", "metadata": {"name": PATCHED}, "data": data})

        def change(spec: Object) -> None:
            spec.setdefault("volumes", []).append({"name": PATCHED, "configMap": {"name": PATCHED}})
            container = spec["containers"][0]
            container["volumeMounts"].append({"name": PATCHED, "mountPath": MOUNT})
            container["env"].append({"name": "PYTHONPATH", "value": MOUNT})

        self.gateway(change)
