"""Replace the pods of one Deployment one after the other, as `kubectl rollout restart` does.

Environment: DEPLOYMENT, NAMESPACE. Uses the pod's own token, whose Role names that Deployment.
"""

import datetime as dt
import os
import sys

from kube_api import ApiError, call


def main() -> int:
    """Patch the pod template's annotation, which starts a rolling update."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    annotations = {"kubectl.kubernetes.io/restartedAt": now}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    name, namespace = os.environ["DEPLOYMENT"], os.environ["NAMESPACE"]
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    try:
        call("PATCH", path, patch, "application/strategic-merge-patch+json")
    except (ApiError, OSError) as error:
        sys.stderr.write(f"roll_deployment: {name}: {error}\n")
        return 1
    sys.stdout.write(f"{name}: rolling since {now}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
