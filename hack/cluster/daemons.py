"""The programs that make a cluster of the places: control plane, kubelets, network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import cgroups, pki
from hack.cluster.images import PART
from hack.cluster.places import NODE_PLACES, Place, ended, log_of, start
from hack.cluster.programs import BY_NAME, executable
from hack.cluster.settings import (
    ADDRESS_SPACE,
    DNS_ADDRESS,
    KUBECONFIG,
    NAME,
    NODE_ADDRESS,
    POD_RANGE,
    ROOT,
    RUN,
    SERVICE_RANGE,
    ClusterError,
)
from hack.cluster.shell import eventually, run, succeeds

if TYPE_CHECKING:
    from collections.abc import Callable

PKI = pki.PKI
CONTROL = NODE_PLACES["node1"]
ETCD_URL = "http://127.0.0.1:2379"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CILIUM_SOCKET = "/run/cilium/cilium.sock"
# A failed node is noticed after 12 s instead of 40, and its pods leave it after 5 s instead of 300.
EVICTION_SECONDS = "5"
# What Cilium asks the kernel for; a kernel that has it built in lists no module.
KERNEL_MODULES = (
    "ip_tables",
    "iptable_nat",
    "iptable_mangle",
    "iptable_raw",
    "iptable_filter",
    "xt_socket",
    "xt_TPROXY",
    "xt_CT",
    "xt_mark",
    "xt_set",
)


def tool(name: str) -> Path:
    """Path of a program that hack/tools/install.sh brings."""
    return Path(run([ROOT / "hack" / "tools" / "install.sh", name]).strip())


def kubectl(*arguments: str, text: str | None = None, timeout: float | None = None) -> str:
    """Output of kubectl as the cluster's administrator."""
    command = [tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments]
    return run(CONTROL.inside(command, mounts=False), text=text, timeout=timeout)


def alive(name: str, holds: Callable[[], bool]) -> Callable[[], bool]:
    """`holds`, but an error as soon as the daemon has ended."""

    def check() -> bool:
        if ended(name):
            raise ClusterError(f"{name} has ended\n{log_of(name)}")
        return holds()

    return check


def start_etcd() -> None:
    """Start the store; what it holds goes with the cluster."""
    data = RUN / "etcd"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [tool("etcd"), "--data-dir", data, "--log-level", "warn"]
    command += ["--listen-client-urls", ETCD_URL, "--advertise-client-urls", ETCD_URL]
    command += ["--listen-peer-urls", "http://127.0.0.1:2380"]
    # A start that is lost is made again: nothing here needs to survive a power cut.
    command += ["--unsafe-no-fsync"]
    start("etcd", command, CONTROL)


def start_apiserver() -> None:
    """Start the API server; also what brings it back after a fault."""
    start(
        "kube-apiserver",
        [
            executable("kubernetes", "kube-apiserver"),
            f"--etcd-servers={ETCD_URL}",
            f"--advertise-address={NODE_ADDRESS['node1']}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--client-ca-file={PKI / 'ca.crt'}",
            f"--tls-cert-file={PKI / 'apiserver.crt'}",
            f"--tls-private-key-file={PKI / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={PKI / 'accounts.pub'}",
            f"--service-account-signing-key-file={PKI / 'accounts.key'}",
            f"--kubelet-client-certificate={PKI / 'admin.crt'}",
            f"--kubelet-client-key={PKI / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            # The aggregation layer, for metrics-server.
            f"--requestheader-client-ca-file={PKI / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={PKI / 'front-proxy.crt'}",
            f"--proxy-client-key-file={PKI / 'front-proxy.key'}",
            f"--default-not-ready-toleration-seconds={EVICTION_SECONDS}",
            f"--default-unreachable-toleration-seconds={EVICTION_SECONDS}",
        ],
        CONTROL,
    )


def api_is_ready() -> bool:
    """Whether the API server answers /readyz with ok."""
    command = ["curl", "-sf", "-m", "2", "--noproxy", "*", "--cacert", PKI / "ca.crt"]
    command += ["--cert", PKI / "admin.crt", "--key", PKI / "admin.key", f"{pki.API_URL}/readyz"]
    return succeeds(CONTROL.inside(command, mounts=False))


def wait_for_api(seconds: float = 120) -> None:
    """Return when the API server is ready."""
    eventually(
        "the API server is ready",
        alive("kube-apiserver", api_is_ready),
        seconds,
        lambda: log_of("kube-apiserver"),
    )


def start_controllers() -> None:
    """Start what needs the API server and no node: controllers, scheduler, Cilium's operator."""
    start(
        "kube-controller-manager",
        [
            executable("kubernetes", "kube-controller-manager"),
            f"--kubeconfig={PKI / 'controllers.kubeconfig'}",
            f"--service-account-private-key-file={PKI / 'accounts.key'}",
            f"--root-ca-file={PKI / 'ca.crt'}",
            f"--cluster-signing-cert-file={PKI / 'ca.crt'}",
            f"--cluster-signing-key-file={PKI / 'ca.key'}",
            "--use-service-account-credentials",
            "--allocate-node-cidrs",
            f"--cluster-cidr={POD_RANGE}",
            "--leader-elect=false",
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=12s",
            # Autoscaling that a test can wait for.
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
            "--horizontal-pod-autoscaler-downscale-stabilization=20s",
        ],
        CONTROL,
    )
    start(
        "kube-scheduler",
        [
            executable("kubernetes", "kube-scheduler"),
            f"--kubeconfig={PKI / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
        ],
        CONTROL,
    )
    start(
        "cilium-operator",
        [
            executable("cilium", "cilium-operator"),
            f"--k8s-kubeconfig-path={KUBECONFIG}",
            "--ipam=kubernetes",
            "--identity-allocation-mode=crd",
            f"--cluster-name={NAME}",
            "--cluster-id=0",
            "--set-cilium-is-up-condition=false",
            "--remove-cilium-node-taints=false",
            "--enable-metrics=false",
            "--operator-api-serve-addr=127.0.0.1:9234",
        ],
        CONTROL,
    )


CONTAINERD_CONFIG = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
{{disabled}}
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PART["pause"].reference}"
  # Without CAP_SYS_RESOURCE no process may be made less likely to be killed.
  restrict_oom_score_adj = true
  # CoreDNS binds port 53 without being root.
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/run/cni/bin"
    conf_dir = "/run/cni/net.d"
"""


def start_containerd(node: Place, *, kubernetes: bool = True) -> None:
    """Start a node's containerd, and wait for its socket.

    Args:
        node: Where.
        kubernetes: False leaves the kubelet's interface off, so that what an earlier start left
            behind can be removed before the kubelet hears of it.
    """
    folder = RUN / node.name
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "containerd.toml"
    disabled = "" if kubernetes else 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'
    config.write_text(CONTAINERD_CONFIG.format(disabled=disabled))
    name = f"{node.name}-containerd"
    start(name, ["containerd", "--config", config], node, mounts=True)
    eventually(
        f"containerd of {node.name} answers",
        alive(name, lambda: succeeds(node.inside(["ctr", "version"]))),
        30,
        lambda: log_of(name),
    )


def kubelet_config(node: Place) -> str:
    """The kubelet's configuration file, as JSON is YAML too."""
    return f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {PKI / "ca.crt"}}}
authorization: {{mode: Webhook}}
tlsCertFile: {PKI / f"{node.name}.crt"}
tlsPrivateKeyFile: {PKI / f"{node.name}.key"}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroups.SLICE}/{node.name} # a kubelet ends what it does not know below its root
failSwapOn: false
clusterDNS: [{DNS_ADDRESS}]
clusterDomain: cluster.local
resolvConf: /dev/null
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 4s
# Off: an image that is removed cannot be pulled again.
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 200Mi
  nodefs.available: 1%
  imagefs.available: 1%
  nodefs.inodesFree: 1%
"""


def start_node(node: Place) -> None:
    """Start a node's kubelet and kube-proxy."""
    config = RUN / node.name / "kubelet.yaml"
    config.write_text(kubelet_config(node))
    start(
        f"{node.name}-kubelet",
        [
            executable("kubernetes", "kubelet"),
            f"--config={config}",
            f"--kubeconfig={PKI / f'{node.name}.kubeconfig'}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            "--root-dir=/var/lib/kubelet",
        ],
        node,
        mounts=True,
    )
    start(
        f"{node.name}-kube-proxy",
        [
            executable("kubernetes", "kube-proxy"),
            f"--kubeconfig={PKI / 'proxy.kubeconfig'}",
            f"--hostname-override={node.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_RANGE}",
            "--conntrack-max-per-core=0",
        ],
        node,
        mounts=True,
    )


def start_cilium(node: Place) -> None:
    """Start a node's Cilium agent, which gives pods their network and enforces policies."""
    cilium = BY_NAME["cilium"].folder
    library = RUN / node.name / "cilium"
    state = library / "state"
    state.mkdir(parents=True, exist_ok=True)
    bpf = library / "bpf"
    if not bpf.exists():
        bpf.symlink_to(cilium / "bpf")
    links: dict[str, object] = {
        "/run/cni/bin/cilium-cni": cilium / "cilium-cni",
        "/run/cni/bin/loopback": "/usr/lib/cni/loopback",
        "/run/bin/clang": "/usr/bin/clang-16",
        "/run/bin/llc": "/usr/bin/llc-16",
    }
    for link, target in links.items():
        node.run("ln", "-sf", target, link)
    modules = "".join(f"{name} 16384 1 - Live 0x0\n" for name in KERNEL_MODULES)
    node.run("sh", "-c", "cat > /run/kernel-modules", text=modules)
    start(
        f"{node.name}-cilium-agent",
        [
            cilium / "cilium-agent",
            f"--k8s-kubeconfig-path={KUBECONFIG}",
            f"--lib-dir={library}",
            f"--state-dir={state}",
            f"--socket-path={CILIUM_SOCKET}",
            "--ipam=kubernetes",
            "--identity-allocation-mode=crd",
            f"--cluster-name={NAME}",
            "--cluster-id=0",
            "--enable-ipv4=true",
            "--enable-ipv6=false",
            "--devices=eth0",
            "--routing-mode=native",
            "--auto-direct-node-routes=true",
            f"--ipv4-native-routing-cidr={ADDRESS_SPACE}",
            "--enable-ipv4-masquerade=false",
            "--kube-proxy-replacement=false",
            "--enable-l7-proxy=true",
            "--enable-hubble=false",
            "--enable-health-checking=false",
            "--enable-endpoint-health-checking=false",
            "--cgroup-root=/run/cilium/cgroup2",
            "--bpf-lb-sock=false",
        ],
        node,
        mounts=True,
        environment={
            "K8S_NODE_NAME": node.name,
            "PATH": f"/run/bin:{os.environ['PATH']}",
        },
    )


def join_network(node: Place) -> None:
    """Tell containerd of the network once the agent answers: until then the node is not Ready."""
    name = f"{node.name}-cilium-agent"
    eventually(
        f"Cilium of {node.name} answers",
        alive(name, lambda: succeeds(node.inside(["test", "-S", CILIUM_SOCKET]))),
        90,
        lambda: log_of(name),
    )
    config = '{"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]}\n'
    node.run("sh", "-c", "cat > /run/cni/net.d/05-cilium.conflist", text=config)


def node_is_ready(node: Place) -> bool:
    """Whether the API server says that a node is Ready."""
    condition = '{.status.conditions[?(@.type=="Ready")].status}'
    try:
        return kubectl("get", "node", node.name, "-o", f"jsonpath={condition}") == "True"
    except ClusterError:
        return False


def wait_for_nodes(seconds: float = 90) -> None:
    """Return when every node is Ready."""
    for node in NODE_PLACES.values():
        eventually(
            f"{node.name} is Ready",
            lambda node=node: node_is_ready(node),  # type: ignore[misc]
            seconds,
            lambda node=node: log_of(f"{node.name}-kubelet"),  # type: ignore[misc]
        )
