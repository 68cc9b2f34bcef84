"""GPUs by NVIDIA's DCGM exporter, beside what the gateway believes is awake on them."""

from __future__ import annotations

from .page import NAMESPACE, NAMESPACES, Page, Panel, Query, Row, Threshold, Variable

THIS = 'Hostname=~"$node"'
NODES = Variable("node", "Node", "label_values(DCGM_FI_DEV_GPU_TEMP, Hostname)", many=True)
LEGEND = "{{Hostname}} GPU {{gpu}}"


def _field(name: str) -> str:
    return f"DCGM_FI_DEV_{name}{{{THIS}}}"


def _panel(title: str, description: str, unit: str, field: str) -> Panel:
    return Panel(title, description, unit, (Query(_field(field), LEGEND),))


MEMORY = Row(
    "Memory",
    (
        Panel(
            "Memory in use",
            "Share of the card's memory.",
            "percentunit",
            (Query(f"{_field('FB_USED')} / ({_field('FB_USED')} + {_field('FB_FREE')})", LEGEND),),
            width=12,
            top=1,
            thresholds=(Threshold(0.97, "red"),),
        ),
        Panel(
            "Memory",
            "Used and free.",
            "mbytes",
            (
                Query(_field("FB_USED"), f"{LEGEND} used"),
                Query(_field("FB_FREE"), f"{LEGEND} free"),
            ),
            width=12,
            stacked=True,
        ),
        Panel(
            "Who is awake",
            "Models that the gateway believes are hot, by backend.",
            "none",
            (
                Query(
                    "max by (backend, model) "
                    f'(synapse_model_state{{{NAMESPACE}, state="hot"}}) == 1',
                    "{{model}} on {{backend}}",
                ),
            ),
            width=24,
        ),
    ),
)

WORK = Row(
    "Work and heat",
    (
        _panel("Utilisation", "Share of time in which a kernel ran.", "percent", "GPU_UTIL"),
        _panel(
            "Memory utilisation",
            "Share of time in which memory was read or written.",
            "percent",
            "MEM_COPY_UTIL",
        ),
        _panel("Power", "Power drawn.", "watt", "POWER_USAGE"),
        Panel(
            "Temperature",
            "Of the chip. Cards slow themselves down from about 90 °C.",
            "celsius",
            (Query(_field("GPU_TEMP"), LEGEND),),
            thresholds=(Threshold(85, "red"),),
        ),
        _panel("Clock", "Of the processors.", "rotmhz", "SM_CLOCK"),
        Panel(
            "Slowed down",
            "Whether heat or the power limit lowers the clock (above 0: it does).",
            "none",
            (
                Query(f"rate({_field('THERMAL_VIOLATION')}[$__rate_interval])", f"{LEGEND} heat"),
                Query(f"rate({_field('POWER_VIOLATION')}[$__rate_interval])", f"{LEGEND} power"),
            ),
        ),
        Panel(
            "Last Xid",
            "The driver's last error; 0 is none.",
            "none",
            (Query(_field("XID_ERRORS"), LEGEND),),
            kind="stat",
            width=24,
            thresholds=(Threshold(0, "green"), Threshold(1, "red")),
        ),
    ),
)

PAGE = Page(
    "synapse-gpu",
    "Synapse / GPU",
    "Memory, work, heat and errors of the cards.",
    (MEMORY, WORK),
    (NAMESPACES, NODES),
)
