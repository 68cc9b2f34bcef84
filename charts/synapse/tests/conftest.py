"""Tests of the chart need the pinned Helm versions."""

from __future__ import annotations

import pytest
from charts.synapse.tests.chart import tool


@pytest.fixture(autouse=True, scope="session")
def _helm() -> None:
    tool("helm3")
    tool("helm4")
