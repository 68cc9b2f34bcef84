"""An application's namespace with an Ollama of its own, and with pods that call it by its name."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from conformance.suite.lines import NotSupported
from conformance.suite.timeouts import RECOVERY, eventually

if TYPE_CHECKING:
    from conformance.suite.cluster import Object
    from conformance.suite.session import Session

OLLAMA = "ollama"
PORT = 11434


class Team:
    """One such namespace.

    Args:
        deployment: Whose Ollama image, and whose weights, are used.
        name: The namespace; it goes when the run ends.

    Raises:
        NotSupported: The release has no Ollama whose image could be taken.
    """

    def __init__(self, deployment: Session, name: str) -> None:
        self._deployment = deployment
        self._cluster = deployment.cluster
        self.name = name
        if OLLAMA not in deployment.release.components:
            raise NotSupported("the release has no Ollama whose image and models could be taken")
        deployment.lab.namespace(name, **{"synapse.io/access": "true"})
        self._make_server()
        self.caller = deployment.lab.pod(name, "caller")

    @property
    def url(self) -> str:
        """What its applications call."""
        return f"http://{OLLAMA}.{self.name}.svc.cluster.local:{PORT}"

    def replicas(self) -> int:
        """Return how many replicas its Ollama is to have."""
        return int(self._cluster.get("Deployment", OLLAMA, self.name)["spec"]["replicas"])

    def service(self) -> Object:
        """Return its Service."""
        return self._cluster.get("Service", OLLAMA, self.name)

    def bring(self, *models: str) -> None:
        """Bring models into it, from where the release's own Ollama has them.

        Raises:
            NotSupported: The release does not bring any.
        """
        jobs = (one for one in self._deployment.release.objects if one["kind"] == "Job")
        job = next((one for one in jobs if "pull" in one["metadata"]["name"]), None)
        if job is None:
            raise NotSupported("the release's Ollama gets its models from elsewhere")
        spec = copy.deepcopy(job["spec"]["template"]["spec"])
        env = {one["name"]: one for one in spec["containers"][0]["env"]}
        wanted = [one for one in json.loads(env["MODELS"]["value"]) if one["name"] in models]
        env["MODELS"]["value"] = json.dumps(wanted)
        env["OLLAMA_URL"]["value"] = self.url
        for volume in spec["volumes"]:
            if "configMap" in volume:
                self._copy_config(volume["configMap"]["name"])
        spec["restartPolicy"] = "OnFailure"
        meta = {"name": "bring", "namespace": self.name}
        self._cluster.apply({"kind": "Pod", "metadata": meta, "spec": spec})

        def brought() -> bool:
            pod = self._cluster.get("Pod", "bring", self.name)
            return bool(pod["status"]["phase"] == "Succeeded")

        eventually(f"{self.name} has {', '.join(models)}", brought, RECOVERY)

    def _make_server(self) -> None:
        served = self._cluster.get("Deployment", OLLAMA)["spec"]["template"]["spec"]
        spec = copy.deepcopy(served)
        self.image = str(spec["containers"][0]["image"])
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                volume["persistentVolumeClaim"] = {"claimName": OLLAMA}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        kept = {"name": OLLAMA, "namespace": self.name}
        self._cluster.apply({"kind": "PersistentVolumeClaim", "metadata": kept, "spec": claim})
        labels = {"app": OLLAMA}
        ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
        meta = {"name": OLLAMA, "namespace": self.name, "labels": labels}
        self._cluster.apply(
            {
                "kind": "Deployment",
                "metadata": meta,
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }
        )
        self._cluster.apply(
            {"kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": ports}}
        )

        def ready() -> bool:
            status = self._cluster.get("Deployment", OLLAMA, self.name).get("status", {})
            return bool(status.get("readyReplicas"))

        eventually(f"the Ollama of {self.name} is ready", ready, RECOVERY)

    def _copy_config(self, name: str) -> None:
        found = self._cluster.get("ConfigMap", name)
        meta = {"name": name, "namespace": self.name}
        self._cluster.apply({"kind": "ConfigMap", "metadata": meta, "data": found["data"]})
