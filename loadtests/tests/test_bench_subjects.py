import re
from pathlib import Path

from loadtests.bench import subjects


def test_gateway_configuration_has_everything_on() -> None:
    config = subjects.gateway_config([1001, 1002], keys=50, models=20)
    assert (len(config["keys"]), len(config["models"]), len(config["backends"])) == (50, 20, 2)
    assert config["auth"] == "keys"
    assert all(len(model["targets"]) == 2 for model in config["models"].values())
    assert all(key["requests_per_minute"] for key in config["keys"].values())


def test_nginx_keeps_connections_and_buffers_on_one_port_only(tmp_path: Path) -> None:
    config = subjects.nginx_config(tmp_path, [1001, 1002], 2001, 2002)
    buffered, unbuffered = re.findall(r"listen 127\.0\.0\.1:\d+ .*?\n  }", config, re.DOTALL)
    assert "proxy_buffering off" not in buffered
    assert "proxy_buffering off" in unbuffered
    assert "access_log" in config
    assert config.count("server 127.0.0.1:") == 2
