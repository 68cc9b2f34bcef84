"""Both Helm versions render every values file, the same every time and the same as each other."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING

import pytest
import yaml
from charts.synapse.tests.chart import (
    ALL_VALUES,
    CHART,
    HELMS,
    VALUES,
    identify,
    manifests,
    name_of,
    of_kind,
    pods,
    run_helm,
    template,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_lint_finds_nothing(values: Path, helm: str) -> None:
    done = run_helm(helm, "lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_helm_3_and_4_render_the_same(values: Path) -> None:
    assert template(values, helm="helm3") == template(values, helm="helm4")


@pytest.mark.slow
@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_rendering_twice_gives_the_same(values: Path) -> None:
    first = template(values)
    template.cache_clear()
    assert template(values) == first


def test_no_template_looks_up_or_draws() -> None:
    forbidden = re.compile(
        r"\b(lookup|rand(AlphaNum|Alpha|Numeric|Ascii|Bytes|Int)|uuidv4|gen[A-Z]\w*(Key|Cert|CA)|"
        r"now|htpasswd|bcrypt|derivePassword)\b(?=[^}]*}})"
    )
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            for action in re.findall(r"{{.*?}}", path.read_text(), re.DOTALL):
                code = re.sub(r'"[^"]*"|/\*.*?\*/', "", action, flags=re.DOTALL)
                assert not forbidden.search(code), f"{path.name}: {action}"


@pytest.mark.slow
@pytest.mark.parametrize("helm", HELMS)
def test_a_package_holds_the_monitoring_files_that_are_linked(helm: str, tmp_path: Path) -> None:
    done = run_helm(helm, "package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("synapse-*.tgz")
    with tarfile.open(archive) as package:
        names = package.getnames()
    assert "synapse/files/monitoring/alerts/gateway.yaml" in names
    assert not [name for name in names if "/tests/test_" in name], "tests do not belong in it"


@pytest.mark.slow
@pytest.mark.parametrize("helm", HELMS)
def test_the_package_renders_as_the_folder_does(helm: str, tmp_path: Path) -> None:
    run_helm(helm, "package", str(CHART), "--destination", str(tmp_path))
    (archive,) = tmp_path.glob("synapse-*.tgz")
    values = CHART.parents[1] / "values" / "phase6.yaml"
    arguments = ["--namespace", "llm-infra", "--values", str(values)]
    arguments += ["--api-versions", "monitoring.coreos.com/v1"]
    packed = run_helm(helm, "template", "synapse", str(archive), *arguments)
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == template(values, helm=helm)


@pytest.mark.slow
def test_without_the_prometheus_operator_services_carry_annotations() -> None:
    phase5 = CHART.parents[1] / "values" / "phase5.yaml"
    plain = manifests(phase5, apis=())
    assert not of_kind(plain, "ServiceMonitor", "PrometheusRule")
    scraped = {
        name_of(service): service["metadata"].get("annotations", {}).get("prometheus.io/port")
        for service in of_kind(plain, "Service")
    }
    assert scraped["Service/synapse-gateway"] == "8000"
    assert scraped["Service/dcgm-exporter"] == "9400"
    with_operator = manifests(phase5)
    assert of_kind(with_operator, "ServiceMonitor")
    assert of_kind(with_operator, "PrometheusRule")


@pytest.mark.slow
def test_switching_the_operator_changes_no_pod() -> None:
    phase5 = CHART.parents[1] / "values" / "phase5.yaml"
    assert pods(manifests(phase5, apis=())) == pods(manifests(phase5))


@pytest.mark.slow
def test_kubernetes_before_1_26_is_refused() -> None:
    arguments = ["template", "synapse", str(CHART), "--kube-version", "1.25.0"]
    done = run_helm("helm4", *arguments)
    assert done.returncode != 0
    assert ">=1.26.0-0" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_site_names_are_in_forge_only(values: Path) -> None:
    words = ["local-path", "traefik", "arunlabs"]
    found = [word for word in words if word in values.read_text()]
    assert bool(found) == (values.stem == "forge"), found


@pytest.mark.slow
def test_a_new_gateway_restarts_no_engine(tmp_path: Path) -> None:
    forge = CHART.parents[1] / "values" / "forge.yaml"
    newer = tmp_path / "newer.yaml"
    newer.write_text('gateway: {image: {tag: "9.9.9"}}\n')
    before, after = (
        {pod.owner: pod for pod in pods(manifests(*values)) if pod.long_running}
        for values in ((forge,), (forge, newer))
    )
    changed = [owner for owner, pod in after.items() if before[owner] != pod]
    assert changed == ["Deployment/synapse-gateway"]


@pytest.mark.slow
@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_another_tag_never_keeps_the_digest_of_the_default(values: Path) -> None:
    """`make pin-digests` fills the chart's; a digest decides what runs."""

    def images(node: object) -> list[dict[str, str]]:
        if not isinstance(node, dict):
            return []
        own = [node["image"]] if isinstance(node.get("image"), dict) else []
        return own + [found for each in node.values() for found in images(each)]

    for image in images(yaml.safe_load(values.read_text())):
        if image.get("tag"):
            assert "digest" in image, image
