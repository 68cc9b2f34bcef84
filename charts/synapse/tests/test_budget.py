"""Each figure of memory is recomputed: formulas in comments, sums against the machine."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import CHART, ROOT, VALUES, identify, manifests, of_kind, pods
from charts.synapse.tests.test_route_table import loaded

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FORMULA = re.compile(r"# vram: (?P<terms>[^=]+?) = (?P<total>[0-9.]+) GiB")
OPERATORS: dict[type, Any] = {ast.Add: operator.add, ast.Mult: operator.mul}
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1}
GIB = 2**30


def evaluate(text: str) -> float:
    """A sum of products of numbers and GiB, in bytes."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return float(OPERATORS[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.Name):
            assert node.id == "GiB"
            return GIB
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int | float)
        return float(node.value)

    return value(ast.parse(text, mode="eval").body)


def quantity(text: str) -> int:
    match = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|Ti|)", str(text))
    assert match, text
    return int(float(match[1]) * UNITS[match[2]])


def formulas(path: Path) -> list[tuple[str, float, str]]:
    """Terms, stated total in GiB, and the text after the comment up to the next blank line."""
    text = path.read_text()
    found = []
    for match in FORMULA.finditer(text):
        rest = re.split(r"\n\s*\n|\n\S", text[match.end() :])[0]
        found.append((match["terms"], float(match["total"]), rest))
    return found


FILES = [CHART / "values.yaml", ROOT / "values" / "forge.yaml"]


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_every_video_memory_figure_follows_from_its_formula(path: Path) -> None:
    found = formulas(path)
    assert found
    for terms, total, rest in found:
        assert evaluate(terms) / GIB == pytest.approx(total, rel=0.04), terms
        value = re.search(r'vram: \{awake: "?([0-9.A-Za-z]+)"?', rest)
        assert value, f"no value follows the formula {terms}"
        if value[1] != "0":  # a default for the CPU; the comment tells what a GPU would need
            assert quantity(value[1]) / GIB == pytest.approx(total, rel=0.001), terms


def test_forge_uses_the_figures_of_the_formulas() -> None:
    text = (CHART / "values.yaml").read_text()
    for component in ("speaches", "pyannote-speaker"):
        block = text[text.index(f"\n{component}:") :]
        match = FORMULA.search(block)
        assert match
        forge = (ROOT / "values" / "forge.yaml").read_text()
        value = re.search(rf"\n{component}:.*\n(?:.*\n)*?.*awake: ([0-9.]+)Gi", forge)
        assert value
        assert float(value[1]) == float(match["total"])


def test_forge_fits_its_card_and_its_memory(tmp_path: Path) -> None:
    forge = ROOT / "values" / "forge.yaml"
    backends = loaded(tmp_path, forge).settings.backends
    awake = {name: one.vram.awake for name, one in backends.items() if one.vram}
    assert set(awake) == {
        "vllm-inference",
        "llama-router",
        "chatterbox-tts",
        "speaches",
        "pyannote-speaker",
    }
    assert sum(awake.values()) <= 32607 * 2**20
    limits = 0
    for pod, replicas in _long_running(forge):
        for container in pod.spec["containers"]:
            limits += replicas * quantity(container["resources"]["limits"]["memory"])
    assert limits <= 157 * 10**9
    # The gateway's replicas at their most.
    assert limits > 130 * 10**9, "the sum is not of this machine"


def _long_running(values: Path) -> list[tuple[Any, int]]:
    objects = manifests(values)
    most = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["maxReplicas"]
        for one in of_kind(objects, "HorizontalPodAutoscaler")
    }
    replicas = {
        f"{one['kind']}/{one['metadata']['name']}": most.get(
            one["metadata"]["name"], one["spec"].get("replicas", 1)
        )
        for one in of_kind(objects, "Deployment", "DaemonSet")
    }
    return [(pod, replicas[pod.owner]) for pod in pods(objects) if pod.long_running]


def test_vllm_is_given_its_share_of_the_card() -> None:
    forge = ROOT / "values" / "forge.yaml"
    (vllm,) = [pod for pod in pods(manifests(forge)) if pod.name == "vllm-inference"]
    (engine,) = vllm.spec["containers"]
    assert "--gpu-memory-utilization=0.42" in engine["args"]  # 13.5 of 31.84 GiB
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_gpu_pods_ask_for_no_more_shares_than_the_card_is_cut_into() -> None:
    forge = ROOT / "values" / "forge.yaml"
    shares = sum(
        int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        for pod, replicas in _long_running(forge)
        for container in pod.spec["containers"]
    )
    assert shares == 5


@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_a_values_file_opens_with_its_four_lines(values: Path) -> None:
    lines = values.read_text().splitlines()[:5]
    assert [line.split(":")[0] for line in lines[:4]] == ["# For", "# Adds", "# Needs", "# Verify"]
    assert not lines[4].startswith("#")


@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_a_values_file_keeps_the_order_of_values_yaml(values: Path) -> None:
    def order(path: Path) -> list[str]:
        return re.findall(r"^([a-zA-Z][\w-]*):", path.read_text(), re.MULTILINE)

    known = order(CHART / "values.yaml")
    used = order(values)
    assert used == sorted(used, key=known.index)
