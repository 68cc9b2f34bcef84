"""The same requests through wrk, a client that is not ours: a check on the harness itself."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from loadtests.bench.processes import HARNESS_CORE, BenchError, pinned
from loadtests.bench.ratios import Row, divide

if TYPE_CHECKING:
    from loadtests.bench.measure import Plan
    from loadtests.bench.subjects import Setup

_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local bodies, heads, n = {}, {}, 0
for model = 0, 19 do
  bodies[model] = string.format('{"model":"bench-%03d","messages":[{"role":"user","content":' ..
    '"What is the capital of France? Answer in one short sentence."}]}', model)
end
local requests = {}
init = function(args)
  for key = 0, 49 do
    wrk.headers["authorization"] = string.format("Bearer sk-bench-%04d", key)
    for model = 0, 19 do
      requests[#requests + 1] = wrk.format(nil, "/v1/chat/completions", nil, bodies[model])
    end
  end
end
request = function()
  n = n % #requests + 1
  return requests[n]
end
"""


def cross_check(setup: Setup, plan: Plan) -> Row:
    """Return requests a second as wrk measures them, once for each target."""
    script = setup.children.folder / "requests.lua"
    script.write_text(_SCRIPT, encoding="utf-8")
    rates: dict[str, float] = {}
    for proxy in setup.proxies:
        setup.control(fail_every=0)
        command = ["wrk", "-t1", f"-c{plan.connections}", f"-d{max(round(plan.seconds), 1)}s"]
        done = subprocess.run(  # noqa: S603 - fixed arguments
            pinned(HARNESS_CORE, [*command, "-s", str(script), f"http://127.0.0.1:{proxy.port}"]),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if found is None or "Non-2xx" in done.stdout:
            raise BenchError(f"wrk on {proxy.name}: {done.stdout.strip()} {done.stderr.strip()}")
        rates[proxy.name] = float(found[1])
    gateway = rates.get("gateway")
    return Row(
        name="requests/s as wrk counts them",
        unit="1/s",
        direct=rates["direct"],
        nginx=rates["nginx"],
        gateway=gateway,
        note="once, no aim: a check on our own client",
        ratio=None if gateway is None else divide(gateway, rates["nginx"]),
    )
