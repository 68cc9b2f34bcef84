from __future__ import annotations

import socket
from pathlib import Path

import pytest

from synapse_gateway.config import ServeOptions
from synapse_gateway.errors import ConfigError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert ServeOptions.from_environ({}) == ServeOptions(instance_id=socket.gethostname())
    assert ServeOptions().config_path == Path("/config/backends.yaml")
    assert ServeOptions().host == "127.0.0.1"


def test_variables_that_are_empty_count_as_unset() -> None:
    names = ("SYNAPSE_GATEWAY_CONFIG_PATH", "SYNAPSE_LOG_LEVEL", "SYNAPSE_REDIS_URL")
    assert ServeOptions.from_environ(dict.fromkeys(names, "")) == ServeOptions.from_environ({})


def test_every_variable_is_taken() -> None:
    options = ServeOptions.from_environ(
        {
            "SYNAPSE_GATEWAY_CONFIG_PATH": "/etc/x.yaml",
            "SYNAPSE_LOG_LEVEL": "debug",
            "SYNAPSE_REDIS_URL": "redis://r",
            "SYNAPSE_INSTANCE_ID": "one",
            "HOSTNAME": "pod",
        }
    )
    assert options == ServeOptions(
        config_path=Path("/etc/x.yaml"),
        config_named=True,
        log_level="DEBUG",
        redis_url="redis://r",
        instance_id="one",
    )


def test_the_pod_s_name_stands_in_for_an_instance_id() -> None:
    assert ServeOptions.from_environ({"HOSTNAME": "pod"}).instance_id == "pod"


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be one of DEBUG, INFO, .* \(got 'loud'\)"):
        ServeOptions.from_environ({"SYNAPSE_LOG_LEVEL": "loud"})


@pytest.mark.parametrize(
    ("host", "on_loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - only a text here
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.example.org", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, on_loopback: bool) -> None:
    assert ServeOptions(host=host).on_loopback is on_loopback
