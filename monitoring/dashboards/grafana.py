"""Pages as Grafana's own dashboard JSON, by Grafana's own SDK."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

if TYPE_CHECKING:
    from .page import Page, Panel, Threshold, Variable

HEIGHT = {"graph": 8, "stat": 4}
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def render(page: Page) -> str:
    """The JSON of a dashboard, ready to be imported or put into a ConfigMap."""
    builder = (
        dashboards.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags(["synapse"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboards.DashboardLink("Synapse")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["synapse"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    for variable in page.variables:
        builder = builder.with_variable(_variable(variable))
    ids = itertools.count(1)
    for row in page.rows:
        builder = builder.with_row(dashboards.Row(row.title).id(next(ids)))
        for panel in row.panels:
            drawn = _graph(panel) if panel.kind == "graph" else _stat(panel)
            builder = builder.with_panel(drawn.id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _variable(variable: Variable) -> dashboards.QueryVariable:
    builder = (
        dashboards.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(DATASOURCE)
        .query({"query": variable.query, "refId": variable.name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if variable.many:
        # Series without the label, of a Prometheus that adds none, are "all" too.
        every = models.VariableOption(text="All", value="$__all")
        builder = builder.multi(True).include_all(True).all_value(".*").current(every)
    return builder


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + place))
        for place, query in enumerate(panel.queries)
    ]


def _graph(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATASOURCE)
        .span(panel.width)
        .height(HEIGHT[panel.kind])
        .min(0)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .targets(list(_targets(panel)))
    )
    if panel.top is not None:
        builder = builder.max(panel.top)
    if panel.stacked:
        builder = builder.stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
        )
    if panel.names:
        builder = builder.mappings([_names(panel)])
    if panel.thresholds:
        builder = builder.thresholds(_thresholds(panel.thresholds, base="transparent"))
        builder = builder.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
        )
    return builder


def _stat(panel: Panel) -> stat.Panel:
    builder = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATASOURCE)
        .span(panel.width)
        .height(HEIGHT[panel.kind])
        .no_value("-")
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(list(_targets(panel)))
    )
    if panel.names:
        builder = builder.mappings([_names(panel)])
    if panel.thresholds:
        builder = builder.thresholds(_thresholds(panel.thresholds, base="green"))
    return builder


def _thresholds(steps: tuple[Threshold, ...], *, base: str) -> dashboards.ThresholdsConfig:
    first = models.Threshold(value=None, color=base)
    rest = [models.Threshold(value=step.value, color=step.color) for step in steps]
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps([first, *rest])


def _names(panel: Panel) -> models.ValueMap:
    options = {
        f"{value:g}": models.ValueMappingResult(text=text, index=place)
        for place, (value, text) in enumerate(panel.names)
    }
    return models.ValueMap(options=options)
