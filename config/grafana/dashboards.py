#!/usr/bin/env python3
"""Writes the Grafana dashboards fleet.json, host.json and container.json into this directory, or into the directory that is given.

The dashboards have over a hundred panels with the same settings. This script computes ids and positions, and has each problem in one
place. `make dashboards` runs it, and a test compares the result with the files.
"""

import json
import sys
from pathlib import Path

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLEET, HOST, CONTAINER = "system-agent-fleet", "system-agent-host", "system-agent-container"

# The labels of a panel's series: all selected hosts, one host, or one container.
ALL_HOSTS = 'job=~"$job",instance=~"$instance"'
ONE_HOST = 'job="$job",instance="$instance"'
ONE_CONTAINER = ONE_HOST + ',name="$container"'

RATE = "[$__rate_interval]"

# Interfaces whose traffic also passes through another interface.
INNER = r'device!~"lo|veth.*|docker.*|podman.*|br-.*|virbr.*|cni.*|flannel.*|cali.*|tap.*|tun.*|ifb.*|bond.*|.*\\..*"'

LINK = "/d/{uid}/{slug}?${{datasource:queryparam}}&var-job=${{__data.fields.job}}&var-instance=${{__data.fields.instance}}"
HOST_LINK = {
    "title": "Open the host",
    "url": LINK.format(uid=HOST, slug="host") + "&${__url_time_range}",
}
CONTAINER_LINK = {
    "title": "Open the container",
    "url": LINK.format(uid=CONTAINER, slug="container") + "&var-container=${__data.fields.name}&${__url_time_range}",
}


class Page:
    """A dashboard. Panels are placed from left to right, in rows of 24 columns."""

    def __init__(self, uid, title, description, variables, links):
        self.uid, self.title, self.description = uid, title, description
        self.variables, self.links = variables, links
        self.panels = []
        self.x = self.y = self.height = 0

    def place(self, panel, width, height):
        if self.x + width > 24:
            self.x, self.y = 0, self.y + self.height
            self.height = 0
        panel["id"] = len(self.panels) + 1
        panel["gridPos"] = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x += width
        self.height = max(self.height, height)
        self.panels.append(panel)

    def row(self, title):
        self.x = 24
        self.place({"type": "row", "title": title, "collapsed": False, "panels": []}, 24, 1)
        self.x = 24

    def lines(self, title, unit, queries, width=8, height=8, stacked=False, limit=(), description="", **defaults):
        """A panel with a line for each series. `queries` are pairs of an expression and a legend. `limit` has legends of limits."""
        custom = {
            "drawStyle": "line",
            "fillOpacity": 25 if stacked else 0,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        }
        as_limit = [
            {"id": "custom.lineStyle", "value": {"dash": [10, 10], "fill": "dash"}},
            {"id": "custom.stacking", "value": {"mode": "none", "group": "limits"}},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
        ]
        overrides = [{"matcher": {"id": "byName", "options": name}, "properties": as_limit} for name in limit]
        panel = self.panel("timeseries", title, description)
        panel["fieldConfig"] = {"defaults": {"unit": unit, "min": 0, "custom": custom, **defaults}, "overrides": overrides}
        panel["options"] = {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        panel["targets"] = [
            {"refId": letter(n), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for n, (expr, legend) in enumerate(queries)
        ]
        self.place(panel, width, height)

    def stat(self, title, unit, expr, text=None, description="", width=4, thresholds=(), **defaults):
        """A panel with one value, or with a label of the series."""
        panel = self.panel("stat", title, description)
        panel["fieldConfig"] = {"defaults": {"unit": unit, "thresholds": steps(thresholds), **defaults}, "overrides": []}
        panel["options"] = {
            "colorMode": "value" if thresholds else "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
            "textMode": "name" if text else "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
        target = {"refId": "A", "datasource": DATASOURCE, "expr": expr, "instant": True, "range": False}
        if text:
            target["legendFormat"] = text
        panel["targets"] = [target]
        self.place(panel, width, 3)

    def table(self, title, description, queries, columns, sort=(), width=24, height=7, links=()):
        """A table. Each query adds a column `Value #A`, `Value #B`, …, and rows with the same labels are merged.

        `columns` are the columns from left to right: pairs of a field and a title, or triples with the settings of the column. A link
        reads other columns of the row, so the table must have the columns `instance` and `job`, and `name` for a container.
        """
        panel = self.panel("table", title, description)
        panel["targets"] = [
            {"refId": letter(n), "datasource": DATASOURCE, "expr": expr, "format": "table", "instant": True, "range": False}
            for n, expr in enumerate(queries)
        ]
        # Grafana calls the column `Value` if there is one query.
        single = len(queries) == 1
        titles, overrides = {}, []
        for field, shown, *settings in columns:
            field = "Value" if single and field == "Value #A" else field
            titles[field] = shown
            properties = [] if shown == field else [("displayName", shown)]
            properties += settings[0].items() if settings else []
            properties += [("links", [link]) for name, link in links if name == field]
            if properties:
                properties = [{"id": key, "value": value} for key, value in properties]
                overrides.append({"matcher": {"id": "byName", "options": field}, "properties": properties})
        panel["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": list(titles)}}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "indexByName": {field: n for n, field in enumerate(titles)},
                    "renameByName": {},
                },
            },
        ]
        panel["fieldConfig"] = {
            "defaults": {"custom": {"align": "auto", "filterable": True, "inspect": False}},
            "overrides": overrides,
        }
        sort = [("Value" if single and field == "Value #A" else field, desc) for field, desc in sort]
        panel["options"] = {
            "showHeader": True,
            "frameIndex": 0,
            "cellHeight": "sm",
            "sortBy": [{"displayName": titles[field], "desc": desc} for field, desc in sort],
        }
        self.place(panel, width, height)

    def panel(self, kind, title, description):
        panel = {"type": kind, "title": title}
        if description:
            panel["description"] = description
        panel["datasource"] = DATASOURCE
        return panel

    def json(self):
        dashboard = {
            "title": self.title,
            "uid": self.uid,
            "description": self.description,
            "tags": ["system-agent"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": self.links,
            "templating": {"list": self.variables},
            "panels": self.panels,
        }
        return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def letter(n):
    return chr(ord("A") + n)


def steps(thresholds):
    levels = [{"color": color, "value": value} for value, color in zip(thresholds, ("orange", "red"))]
    return {"mode": "absolute", "steps": [{"color": "green" if levels else "text", "value": None}, *levels]}


def colored(unit, *thresholds):
    """The settings of a column whose text is orange or red from these values on."""
    return {"unit": unit, "thresholds": steps(thresholds), "custom.cellOptions": {"type": "color-text"}}


SHARE = colored("percentunit", 0.8, 0.95)


def variable(name, label, query, many=False, all_value=None):
    one = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "hide": 0,
    }
    if many:
        one["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    if all_value:
        one["allValue"] = all_value
    return one


def prometheus():
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def nav(title, uid, slug):
    return {
        "type": "link",
        "title": title,
        "url": f"/d/{uid}/{slug}?${{datasource:queryparam}}"
        + ("" if uid == FLEET else "&${job:queryparam}&${instance:queryparam}"),
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": False,
        "targetBlank": False,
    }


def problem(expr, name, by):
    """Rows for a table of problems: the labels in `by` and the name of the problem."""
    return f'max by ({by}, problem) (label_replace({expr}, "problem", "{name}", "", ""))'


def alerts(page, labels, width=24):
    page.table(
        "Alerts",
        "Alerts that fire in this Prometheus. They need rules, for example prometheus-rules.yml of System Agent. An empty table "
        "means that no alert fires.",
        [f'ALERTS{{alertstate="firing",{labels}}}'],
        [
            ("severity", "severity"),
            ("alertname", "alert"),
            ("instance", "host"),
            ("name", "container or unit"),
            ("mountpoint", "mount point"),
            ("device", "device"),
            ("source", "source"),
            ("job", "job"),
        ],
        sort=[("severity", False), ("alertname", False)],
        width=width,
        links=[("instance", HOST_LINK)],
    )


def container_problems(page, labels, width=12):
    by = "job, instance, name"
    page.table(
        "Containers with problems",
        "Containers that stopped and are meant to run, restart, fail their health check, lost a process because memory ran out within "
        "the last hour, or are near a limit. An empty table means that there is no such container.",
        [
            problem(f"system_agent_stopped_container_down{{{labels}}} == 1", "stopped, and is meant to run", by),
            problem(f'system_agent_container_state{{{labels},state="restarting"}} == 1', "is restarting", by),
            problem(
                f"increase(system_agent_container_restarts_total{{{labels}}}[15m]) > 0", "restarted in the last 15 minutes", by
            ),
            problem(f'system_agent_container_health{{{labels},status="unhealthy"}} == 1', "the health check fails", by),
            problem(f'increase(container_oom_events_total{{{labels},name!=""}}[1h]) > 0', "memory ran out in the last hour", by),
            problem(f"system_agent_stopped_container_oom_killed{{{labels}}} == 1", "stopped because memory ran out", by),
            problem(
                f'container_memory_working_set_bytes{{{labels},name!=""}} / (container_spec_memory_limit_bytes{{{labels},name!=""}} > 0) > 0.9',
                "uses over 90 % of its memory limit",
                by,
            ),
            problem(
                f'rate(container_cpu_cfs_throttled_periods_total{{{labels},name!=""}}[5m])'
                f' / rate(container_cpu_cfs_periods_total{{{labels},name!=""}}[5m]) > 0.25',
                "is throttled in over 25 % of the periods",
                by,
            ),
            problem(
                f'container_threads{{{labels},name!=""}} / (container_threads_max{{{labels},name!=""}} > 0) > 0.9',
                "uses over 90 % of its limit on processes",
                by,
            ),
        ],
        [("name", "container"), ("problem", "problem"), ("instance", "host"), ("job", "job")],
        sort=[("problem", False)],
        width=width,
        links=[("name", CONTAINER_LINK), ("instance", HOST_LINK)],
    )


def host_problems(page, labels, width=12):
    by = "job, instance, what"

    def of(expr, name, label=None):
        """`label` is the label that names the part of the host, such as a device."""
        return problem(f'label_replace({expr}, "what", "$1", "{label}", "(.*)")' if label else expr, name, by)

    page.table(
        "Hosts with problems",
        "Memory, tables and limits of the kernel, the clock, units, sensors, RAID arrays and other hardware of the hosts. An empty table "
        "means that there is no such problem.",
        [
            of(
                f"node_memory_MemAvailable_bytes{{{labels}}} / node_memory_MemTotal_bytes{{{labels}}} < 0.1",
                "under 10 % of the memory is available",
            ),
            of(f"increase(node_vmstat_oom_kill{{{labels}}}[1h]) > 0", "memory ran out in the last hour"),
            of(f"rate(node_pressure_memory_waiting_seconds_total{{{labels}}}[5m]) > 0.1", "programs wait for memory"),
            of(f"rate(node_pressure_io_stalled_seconds_total{{{labels}}}[5m]) > 0.3", "programs wait for disks"),
            of(
                f"node_nf_conntrack_entries{{{labels}}} / node_nf_conntrack_entries_limit{{{labels}}} > 0.9",
                "the table of connections is full",
            ),
            of(f"node_filefd_allocated{{{labels}}} / node_filefd_maximum{{{labels}}} > 0.9", "over 90 % of the open files"),
            of(
                f"increase(node_netstat_TcpExt_ListenDrops{{{labels}}}[15m]) > 0",
                "connections were dropped in the last 15 minutes",
            ),
            of(
                f"node_timex_sync_status{{{labels}}} == 0 and node_timex_maxerror_seconds{{{labels}}} >= 16",
                "the clock is not synchronized",
            ),
            of(f'node_systemd_unit_state{{{labels},state="failed"}} == 1', "the unit failed", "name"),
            of(
                f"rate(node_network_receive_errs_total{{{labels}}}[15m]) + rate(node_network_transmit_errs_total{{{labels}}}[15m]) > 0",
                "the interface had errors in the last 15 minutes",
                "device",
            ),
            of(f"node_md_degraded{{{labels}}} > 0", "the RAID array lacks disks", "device"),
            of(f"node_bonding_active{{{labels}}} < node_bonding_slaves{{{labels}}}", "the bond lacks interfaces", "master"),
            of(f'node_zfs_zpool_state{{{labels},state!="online"}} == 1', "the ZFS pool is not online", "zpool"),
            of(f"increase(system_agent_btrfs_device_errors_total{{{labels}}}[1h]) > 0", "the Btrfs device has errors", "uuid"),
            of(f'node_nvme_info{{{labels},state!="live"}} == 1', "the NVMe controller does not work", "device"),
            of(f"node_edac_uncorrectable_errors_total{{{labels}}} > 0", "the memory has uncorrectable errors", "controller"),
            of(
                f"node_hwmon_temp_celsius{{{labels}}} >= (node_hwmon_temp_crit_celsius{{{labels}}} > 0)",
                "the temperature is critical",
                "chip",
            ),
            # The value is 0.001 for an alarm, as in node_exporter.
            of(f"node_hwmon_temp_crit_alarm_celsius{{{labels}}} > 0", "the sensor has an alarm", "chip"),
            of(f"increase(node_kernel_hung_tasks_total{{{labels}}}[1h]) > 0", "a task hung in the last hour"),
            of(f"system_agent_source_up{{{labels}}} == 0", "the agent's source fails", "source"),
            of(f"node_textfile_scrape_error{{{labels}}} == 1", "a text file cannot be used"),
            of(
                f"time() - system_agent_snapshot_timestamp_seconds{{{labels}}} > 60 + 3 * system_agent_snapshot_interval_seconds{{{labels}}}",
                "the figures are old",
            ),
        ],
        [("instance", "host"), ("problem", "problem"), ("what", "part"), ("job", "job")],
        sort=[("problem", False)],
        width=width,
        links=[("instance", HOST_LINK)],
    )


def disk_problems(page, labels, width=12):
    available, size = f"node_filesystem_avail_bytes{{{labels}}}", f"node_filesystem_size_bytes{{{labels}}}"
    free, files = f"node_filesystem_files_free{{{labels}}}", f"node_filesystem_files{{{labels}}}"
    writable = f"node_filesystem_readonly{{{labels}}} == 0"
    page.table(
        "File systems with problems",
        "File systems that are full within 4 hours if they grow as in the last hour, that have under 10 % of their space or inodes left, or "
        "that do not answer. Read-only file systems are left out. An empty table means that there is no such file system.",
        [
            f"{available} / (-deriv(node_filesystem_avail_bytes{{{labels}}}[1h]) > 0) < 4 * 3600 and {available} / {size} < 0.5",
            f"{free} / (-deriv(node_filesystem_files_free{{{labels}}}[1h]) > 0) < 4 * 3600 and {free} / {files} < 0.5",
            f"{available} / {size} < 0.1 and {writable}",
            f"{free} / {files} < 0.1 and {writable}",
            f"node_filesystem_device_error{{{labels}}} == 1",
        ],
        [
            ("mountpoint", "mount point"),
            ("instance", "host"),
            ("Value #A", "full in", {"unit": "s", "decimals": 0}),
            ("Value #B", "out of inodes in", {"unit": "s", "decimals": 0}),
            ("Value #C", "space left", {"unit": "percentunit"}),
            ("Value #D", "inodes left", {"unit": "percentunit"}),
            ("Value #E", "does not answer", {"unit": "bool_yes_no"}),
            ("device", "device"),
            ("fstype", "type"),
            ("job", "job"),
        ],
        sort=[("Value #A", False)],
        width=width,
        links=[("instance", HOST_LINK)],
    )


def cpu_share(labels):
    rates = f"node_cpu_seconds_total{{{labels}"
    return (
        f'1 - sum by (job, instance) (rate({rates},mode=~"idle|iowait"}}{RATE})) / sum by (job, instance) (rate({rates}}}{RATE}))'
    )


def memory_share(labels):
    by = "max by (job, instance) "
    return f"1 - {by}(node_memory_MemAvailable_bytes{{{labels}}}) / {by}(node_memory_MemTotal_bytes{{{labels}}})"


def disk_share(labels):
    """The fullest file system that can be written to."""
    return (
        f"max by (job, instance) (1 - node_filesystem_avail_bytes{{{labels}}} / node_filesystem_size_bytes{{{labels}}}"
        f" and node_filesystem_readonly{{{labels}}} == 0)"
    )


def fleet():
    page = Page(
        FLEET,
        "System Agent / Fleet",
        "All hosts. Problems come first, then a table with a row for each host.",
        [
            prometheus(),
            variable("job", "Job", "label_values(node_boot_time_seconds, job)", many=True),
            variable(
                "instance", "Host", 'label_values(node_boot_time_seconds{job=~"$job"}, instance)', many=True, all_value=".+"
            ),
        ],
        [],
    )
    labels = ALL_HOSTS
    by = "by (job, instance)"
    page.row("Problems")
    alerts(page, labels, 12)
    page.table(
        "Hosts away",
        "Hosts that Prometheus cannot scrape, and for how long, at most 6 hours. An empty table means that "
        "Prometheus reaches all hosts.",
        [
            f"time() - last_over_time(node_time_seconds{{{labels}}}[6h]) and on (job, instance) up{{{labels}}} == 0",
            f"up{{{labels}}} == 0",
        ],
        [("instance", "host"), ("Value #A", "away for", {"unit": "s", "decimals": 0}), ("job", "job")],
        sort=[("Value #A", True)],
        width=12,
        links=[("instance", HOST_LINK)],
    )
    container_problems(page, labels)
    host_problems(page, labels)
    disk_problems(page, labels, 24)
    page.row("Hosts")
    worst = " or ".join(
        f'label_replace({expr}, "of", "{name}", "", "")'
        for name, expr in (("cpu", cpu_share(labels)), ("memory", memory_share(labels)), ("disk", disk_share(labels)))
    )
    page.table(
        "Hosts",
        "One row for each host. Hosts with alerts are first, then those with the highest share of CPU, memory or disk.",
        [
            f'count {by} (ALERTS{{alertstate="firing",{labels}}}) or 0 * max {by} (up{{{labels}}})',
            f"max {by} (up{{{labels}}})",
            f"max {by} ({worst})",
            cpu_share(labels),
            memory_share(labels),
            disk_share(labels),
            f"sum {by} (rate(node_network_receive_bytes_total{{{labels},{INNER}}}{RATE}))",
            f"sum {by} (rate(node_network_transmit_bytes_total{{{labels},{INNER}}}{RATE}))",
            f'max {by} (node_load5{{{labels}}}) / count {by} (node_cpu_seconds_total{{{labels},mode="idle"}})',
            f'count {by} (container_last_seen{{{labels},name!=""}})',
            f"sum {by} (system_agent_stopped_container_down{{{labels}}})",
            f"time() - max {by} (system_agent_snapshot_timestamp_seconds{{{labels}}} or timestamp(node_boot_time_seconds{{{labels}}}))",
            f"time() - max {by} (node_boot_time_seconds{{{labels}}})",
        ],
        [
            ("instance", "host"),
            ("Value #A", "alerts", colored("none", 1, 5)),
            ("Value #B", "up", {"unit": "bool_yes_no"}),
            ("Value #C", "highest share", SHARE),
            ("Value #D", "CPU", SHARE),
            ("Value #E", "memory", SHARE),
            ("Value #F", "fullest disk", SHARE),
            ("Value #G", "received", {"unit": "Bps"}),
            ("Value #H", "sent", {"unit": "Bps"}),
            ("Value #I", "load for each core", {**colored("none", 1, 2), "decimals": 2}),
            ("Value #J", "containers", {"unit": "none"}),
            ("Value #K", "containers down", colored("none", 1, 1)),
            ("Value #L", "age of the figures", {**colored("s", 90, 300), "decimals": 0}),
            ("Value #M", "uptime", {"unit": "s", "decimals": 0}),
            ("job", "job"),
        ],
        sort=[("Value #A", True), ("Value #C", True)],
        height=14,
        links=[("instance", HOST_LINK)],
    )
    page.row("Over time")
    page.lines(
        "Alerts over time",
        "none",
        [(f'count by (alertname) (ALERTS{{alertstate="firing",{labels}}})', "{{alertname}}")],
        width=12,
        stacked=True,
        decimals=0,
    )
    page.lines("CPU", "percentunit", [(cpu_share(labels), "{{instance}}")], width=12, max=1)
    page.lines("Memory in use", "percentunit", [(memory_share(labels), "{{instance}}")], width=12, max=1)
    page.lines("Fullest disk", "percentunit", [(disk_share(labels), "{{instance}}")], width=12, max=1)
    return page


def host():
    page = Page(
        HOST,
        "System Agent / Host",
        "One host. Problems come first.",
        [
            prometheus(),
            variable("job", "Job", "label_values(node_boot_time_seconds, job)"),
            variable("instance", "Host", 'label_values(node_boot_time_seconds{job="$job"}, instance)'),
        ],
        [nav("Fleet", FLEET, "fleet"), nav("Containers", CONTAINER, "container")],
    )
    h = ONE_HOST

    def of(metric, *more):
        return f"{metric}{{{','.join((h, *more))}}}"

    def rate(metric, *more):
        return f"rate({of(metric, *more)}{RATE})"

    not_active = 'state!="active"'
    busy, unused = 'mode!="idle"', 'mode=~"idle|iowait"'
    idle, named, not_veth = 'mode="idle"', 'name!=""', 'device!~"veth.*"'
    cores = f"count({of('node_cpu_seconds_total', idle)})"

    page.row("Problems")
    alerts(page, h, 12)
    host_problems(page, h)
    container_problems(page, h)
    disk_problems(page, h)

    page.row("Facts")
    page.stat("Host name", "none", of("node_uname_info"), "{{nodename}}")
    page.stat("Operating system", "none", of("node_os_info"), "{{pretty_name}}", width=6)
    page.stat("Kernel", "none", of("node_uname_info"), "{{release}}", width=6)
    page.stat("Booted", "dateTimeFromNow", f"1000 * {of('node_boot_time_seconds')}")
    page.stat(
        "Figures from",
        "dateTimeFromNow",
        f"1000 * {of('system_agent_snapshot_timestamp_seconds')}",
        description="Time of the agent's newest snapshot.",
    )
    page.stat("Cores", "none", cores)
    page.stat("Memory", "bytes", of("node_memory_MemTotal_bytes"))
    page.stat("Virtual machine or container", "none", of("node_systemd_virtualization_info"), "{{virtualization_type}}")
    page.stat("Containers that run", "none", f"count({of('container_last_seen', named)})")
    page.stat("Containers that do not run", "none", of("system_agent_stopped_containers"))
    page.stat("Version of the agent", "none", of("system_agent_build_info"), "{{version}}")

    page.row("CPU")
    page.lines(
        "CPU by mode",
        "percentunit",
        [(f"avg by (mode) ({rate('node_cpu_seconds_total', busy)})", "{{mode}}")],
        stacked=True,
        max=1,
        description="Share of the time of all cores.",
    )
    page.lines(
        "CPU by core", "percentunit", [(f"1 - sum by (cpu) ({rate('node_cpu_seconds_total', unused)})", "core {{cpu}}")], max=1
    )
    page.lines(
        "Load",
        "short",
        [
            (of("node_load1"), "1 minute"),
            (of("node_load5"), "5 minutes"),
            (of("node_load15"), "15 minutes"),
            (cores, "cores"),
        ],
        limit=["cores"],
    )
    page.lines(
        "Running and blocked tasks",
        "short",
        [(of("node_procs_running"), "run or wait for a core"), (of("node_procs_blocked"), "wait for I/O")],
    )
    page.lines(
        "Context switches and interrupts",
        "ops",
        [(rate("node_context_switches_total"), "context switches"), (rate("node_intr_total"), "interrupts")],
    )
    page.lines("Started processes and threads", "ops", [(rate("node_forks_total"), "started")])
    page.lines(
        "Waiting for a core",
        "percentunit",
        [(f"sum by (cpu) ({rate('node_schedstat_waiting_seconds_total')})", "core {{cpu}}")],
        description="Time that tasks waited in the queue of each core, in seconds for each second.",
    )
    page.lines(
        "Frequency",
        "hertz",
        [
            (f"avg({of('node_cpu_scaling_frequency_hertz')})", "average"),
            (f"max({of('node_cpu_scaling_frequency_hertz')})", "highest"),
        ],
    )
    page.lines(
        "Virtual machines on the host",
        "percentunit",
        [(f"sum by (mode) ({rate('node_cpu_guest_seconds_total')})", "{{mode}}")],
        description="CPU time of guests, in cores. It is a part of the modes user and nice.",
    )

    page.row("Memory")
    mem = {
        name: of(f"node_memory_{name}_bytes")
        for name in (
            "MemTotal",
            "MemFree",
            "MemAvailable",
            "Buffers",
            "Cached",
            "SReclaimable",
            "Shmem",
            "SwapTotal",
            "SwapFree",
            "Dirty",
            "Writeback",
            "Slab",
            "KernelStack",
            "PageTables",
            "Percpu",
            "SUnreclaim",
            "Committed_AS",
            "CommitLimit",
            "Active_anon",
            "Inactive_anon",
            "Mapped",
            "Mlocked",
        )
    }
    page.lines(
        "Memory by kind",
        "bytes",
        [
            (
                f"{mem['MemTotal']} - {mem['MemFree']} - {mem['Buffers']} - {mem['Cached']} - {mem['SReclaimable']}",
                "programs and kernel",
            ),
            (mem["Shmem"], "shared memory and tmpfs"),
            (f"{mem['Cached']} - {mem['Shmem']}", "cached files"),
            (mem["Buffers"], "buffers"),
            (mem["SReclaimable"], "reclaimable kernel memory"),
            (mem["MemFree"], "free"),
            (mem["MemTotal"], "total"),
        ],
        stacked=True,
        limit=["total"],
    )
    page.lines(
        "Available memory",
        "bytes",
        [(mem["MemAvailable"], "available"), (mem["MemTotal"], "total")],
        limit=["total"],
        description="Memory that programs can still use without swapping.",
    )
    page.lines(
        "Swap", "bytes", [(f"{mem['SwapTotal']} - {mem['SwapFree']}", "used"), (mem["SwapTotal"], "total")], limit=["total"]
    )
    page.lines("Pages from and to swap", "ops", [(rate("node_vmstat_pswpin"), "read"), (rate("node_vmstat_pswpout"), "written")])
    page.lines(
        "Page faults", "ops", [(rate("node_vmstat_pgfault"), "all"), (rate("node_vmstat_pgmajfault"), "with a read from a disk")]
    )
    page.lines("Not written to disk yet", "bytes", [(mem["Dirty"], "dirty"), (mem["Writeback"], "being written")])
    page.lines(
        "Memory of the kernel",
        "bytes",
        [
            (mem["SUnreclaim"], "slab"),
            (mem["KernelStack"], "stacks"),
            (mem["PageTables"], "page tables"),
            (mem["Percpu"], "per core"),
        ],
        stacked=True,
    )
    page.lines("Committed memory", "bytes", [(mem["Committed_AS"], "committed"), (mem["CommitLimit"], "limit")], limit=["limit"])
    page.lines(
        "Memory ran out", "none", [(f"increase({of('node_vmstat_oom_kill')}[5m])", "killed processes in 5 minutes")], decimals=0
    )

    page.row("Disks")
    page.lines("Read", "Bps", [(rate("node_disk_read_bytes_total"), "{{device}}")])
    page.lines("Written", "Bps", [(rate("node_disk_written_bytes_total"), "{{device}}")])
    page.lines(
        "Utilization",
        "percentunit",
        [(rate("node_disk_io_time_seconds_total"), "{{device}}")],
        max=1,
        description="Share of the time in which the device was busy. Devices that work on many requests at once can do more at 100 %.",
    )
    page.lines(
        "Operations",
        "iops",
        [
            (rate("node_disk_reads_completed_total"), "{{device}} reads"),
            (rate("node_disk_writes_completed_total"), "{{device}} writes"),
        ],
    )
    page.lines(
        "Time of an operation",
        "s",
        [
            (
                f"{rate('node_disk_read_time_seconds_total')} / ({rate('node_disk_reads_completed_total')} > 0)",
                "{{device}} reads",
            ),
            (
                f"{rate('node_disk_write_time_seconds_total')} / ({rate('node_disk_writes_completed_total')} > 0)",
                "{{device}} writes",
            ),
        ],
    )
    page.lines("Length of the queue", "short", [(rate("node_disk_io_time_weighted_seconds_total"), "{{device}}")])

    page.row("File systems")
    fs = {name: of(f"node_filesystem_{name}") for name in ("size_bytes", "avail_bytes", "files", "files_free", "readonly")}
    page.table(
        "File systems",
        "",
        [
            f"1 - {fs['avail_bytes']} / {fs['size_bytes']}",
            fs["avail_bytes"],
            fs["size_bytes"],
            f"1 - {fs['files_free']} / ({fs['files']} > 0)",
            fs["readonly"],
        ],
        [
            ("mountpoint", "mount point"),
            ("Value #A", "in use", SHARE),
            ("Value #B", "available", {"unit": "bytes"}),
            ("Value #C", "size", {"unit": "bytes"}),
            ("Value #D", "inodes in use", SHARE),
            ("Value #E", "read-only", {"unit": "bool_yes_no"}),
            ("device", "device"),
            ("fstype", "type"),
        ],
        sort=[("Value #A", True)],
        width=12,
        height=9,
    )
    page.lines(
        "Space in use",
        "percentunit",
        [(f"1 - {fs['avail_bytes']} / {fs['size_bytes']}", "{{mountpoint}}")],
        width=12,
        height=9,
        max=1,
    )

    page.row("Network")
    page.lines("Received", "Bps", [(rate("node_network_receive_bytes_total", not_veth), "{{device}}")])
    page.lines("Sent", "Bps", [(rate("node_network_transmit_bytes_total", not_veth), "{{device}}")])
    page.lines(
        "Packets",
        "pps",
        [
            (rate("node_network_receive_packets_total", not_veth), "{{device}} received"),
            (rate("node_network_transmit_packets_total", not_veth), "{{device}} sent"),
        ],
    )
    page.lines(
        "Errors and dropped packets",
        "pps",
        [
            (f"{rate('node_network_receive_errs_total')} > 0", "{{device}} errors received"),
            (f"{rate('node_network_transmit_errs_total')} > 0", "{{device}} errors sent"),
            (f"{rate('node_network_receive_drop_total')} > 0", "{{device}} dropped received"),
            (f"{rate('node_network_transmit_drop_total')} > 0", "{{device}} dropped sent"),
        ],
        description="Interfaces with errors or dropped packets. An empty panel means that there are none.",
    )
    page.lines(
        "TCP connections",
        "short",
        [
            (of("node_netstat_Tcp_CurrEstab"), "established"),
            (of("node_sockstat_TCP_alloc"), "sockets"),
            (of("node_sockstat_TCP_tw"), "waiting to be closed"),
            (of("node_sockstat_TCP_orphan"), "without a program"),
        ],
    )
    page.lines(
        "TCP errors",
        "ops",
        [
            (rate("node_netstat_Tcp_RetransSegs"), "sent again"),
            (rate("node_netstat_TcpExt_ListenDrops"), "dropped, because the program was too slow"),
            (rate("node_netstat_TcpExt_ListenOverflows"), "queue of the program was full"),
            (rate("node_netstat_TcpExt_TCPTimeouts"), "timeouts"),
            (rate("node_netstat_Tcp_InErrs"), "invalid"),
        ],
    )
    page.lines(
        "UDP errors",
        "ops",
        [
            (rate("node_netstat_Udp_NoPorts"), "no program"),
            (rate("node_netstat_Udp_InErrors"), "errors received"),
            (rate("node_netstat_Udp_RcvbufErrors"), "receive buffer full"),
            (rate("node_netstat_Udp_SndbufErrors"), "send buffer full"),
        ],
    )
    page.lines(
        "Packet processing",
        "ops",
        [
            (f"sum({rate('node_softnet_dropped_total')})", "dropped, because the queue of a core was full"),
            (f"sum({rate('node_softnet_times_squeezed_total')})", "budget of a core used up"),
        ],
    )
    page.table(
        "Interfaces",
        "",
        [
            of("node_network_up", not_veth),
            of("node_network_mtu_bytes", not_veth),
            of("node_network_speed_bytes", not_veth),
            of("node_network_carrier_changes_total", not_veth),
        ],
        [
            ("device", "interface"),
            ("Value #A", "up", {"unit": "bool_yes_no"}),
            ("Value #B", "MTU", {"unit": "bytes"}),
            ("Value #C", "speed", {"unit": "Bps"}),
            ("Value #D", "changes of the link", {"unit": "none"}),
        ],
        sort=[("device", False)],
        width=8,
        height=8,
    )

    page.row("Pressure")
    for title, resource in (("CPU", "cpu"), ("Memory", "memory"), ("I/O", "io")):
        page.lines(
            f"Pressure: {title}",
            "percentunit",
            [
                (rate(f"node_pressure_{resource}_waiting_seconds_total"), "some tasks waited"),
                *([] if resource == "cpu" else [(rate(f"node_pressure_{resource}_stalled_seconds_total"), "all tasks waited")]),
            ],
            description="Share of the time in which tasks waited.",
        )

    page.row("Kernel")
    page.lines(
        "Tracked connections",
        "short",
        [(of("node_nf_conntrack_entries"), "connections"), (of("node_nf_conntrack_entries_limit"), "limit")],
        limit=["limit"],
    )
    page.lines(
        "Connections that were not tracked",
        "ops",
        [
            (rate("node_nf_conntrack_stat_drop"), "dropped"),
            (rate("node_nf_conntrack_stat_early_drop"), "dropped for a new one"),
            (rate("node_nf_conntrack_stat_insert_failed"), "not inserted"),
        ],
    )
    page.lines(
        "Open files",
        "short",
        [(of("node_filefd_allocated"), "open files")],
        description="Open files of all programs. The limit of the host is so high that a line for it would hide the figure.",
    )
    page.lines(
        "Processes and threads",
        "short",
        [
            (of("node_processes_pids"), "processes"),
            (of("node_processes_threads"), "threads"),
            (of("node_processes_max_threads"), "limit on threads"),
        ],
        limit=["limit on threads"],
    )
    page.lines("Processes by state", "short", [(of("node_processes_state"), "{{state}}")])
    page.lines(
        "Clock",
        "s",
        [(of("node_timex_offset_seconds"), "offset"), (of("node_timex_estimated_error_seconds"), "estimated error")],
        min=None,
        description="Difference between the host's clock and its reference.",
    )
    page.lines(
        "Memory errors",
        "none",
        [
            (f"increase({of('node_edac_correctable_errors_total')}[1h])", "controller {{controller}} corrected in 1 hour"),
            (of("node_edac_uncorrectable_errors_total"), "controller {{controller}} not corrected since the boot"),
        ],
        decimals=0,
    )
    page.lines(
        "Hung tasks", "none", [(f"increase({of('node_kernel_hung_tasks_total')}[1h])", "hung tasks in 1 hour")], decimals=0
    )
    page.lines(
        "Entropy",
        "short",
        [(of("node_entropy_available_bits"), "available bits"), (of("node_entropy_pool_size_bits"), "size of the pool")],
        limit=["size of the pool"],
    )

    page.row("Hardware")
    page.lines(
        "Temperatures",
        "celsius",
        [
            (of("node_hwmon_temp_celsius"), "{{chip}} {{sensor}}"),
            (f"min({of('node_hwmon_temp_crit_celsius')} > 0)", "lowest critical temperature"),
            (of("node_thermal_zone_temp"), "{{type}} {{zone}}"),
        ],
        limit=["lowest critical temperature"],
        min=None,
    )
    page.lines("Fans", "rotrpm", [(of("node_hwmon_fan_rpm"), "{{chip}} {{sensor}}")])
    page.lines(
        "Slowed down because of heat",
        "ops",
        [
            (f"sum by (package) ({rate('node_cpu_package_throttles_total')})", "package {{package}}"),
            (f"sum by (package) ({rate('node_cpu_core_throttles_total')})", "cores of package {{package}}"),
        ],
    )
    page.lines(
        "Power",
        "watt",
        [
            (of("node_hwmon_power_average_watt"), "{{chip}} {{sensor}}"),
            (rate("node_rapl_package_joules_total"), "package {{index}}"),
        ],
    )
    page.lines(
        "GPUs",
        "percentunit",
        [
            (of("system_agent_gpu_busy_ratio"), "{{name}} busy"),
            (f"{of('system_agent_gpu_memory_used_bytes')} / {of('system_agent_gpu_memory_bytes')}", "{{name}} memory"),
        ],
        max=1,
    )
    # Grafana merges rows with the same labels, so metrics of arrays and of pools cannot share a table.
    page.table(
        "RAID arrays",
        "",
        [
            f"{of('node_md_state')} == 1",
            of("node_md_degraded"),
            f"{of('node_md_blocks_synced')} / {of('node_md_blocks')}",
        ],
        [
            ("device", "array"),
            ("state", "state"),
            ("Value #B", "missing disks", colored("none", 1, 1)),
            ("Value #C", "in sync", {"unit": "percentunit"}),
        ],
        width=8,
        height=8,
    )
    page.table(
        "ZFS pools",
        "",
        [f"{of('node_zfs_zpool_state')} == 1"],
        [("zpool", "pool"), ("state", "state")],
        width=8,
        height=8,
    )
    page.lines(
        "Errors of Btrfs devices",
        "none",
        [(f"increase({of('system_agent_btrfs_device_errors_total')}[1h])", "{{uuid}} device {{id}} {{type}} in 1 hour")],
        decimals=0,
    )
    page.table(
        "NVMe controllers",
        "",
        [of("node_nvme_info")],
        [("device", "controller"), ("state", "state"), ("model", "model"), ("firmware_revision", "firmware")],
        width=8,
        height=8,
    )

    page.row("Units of systemd")
    page.table(
        "Units that failed, start or stop",
        "",
        [f"{of('node_systemd_unit_state', not_active)} == 1"],
        [("name", "unit"), ("state", "state")],
        sort=[("state", True)],
        width=6,
        height=8,
    )
    page.lines(
        "CPU of units",
        "short",
        [(f"sum by (name) ({rate('system_agent_unit_cpu_seconds_total')})", "{{name}}")],
        width=6,
        description="In cores.",
    )
    page.lines("Memory of units", "bytes", [(of("system_agent_unit_memory_bytes"), "{{name}}")], width=6)
    page.lines(
        "Restarts and killed processes of units",
        "none",
        [
            (f"increase({of('node_systemd_service_restart_total')}[15m])", "{{name}} restarts in 15 minutes"),
            (f"increase({of('system_agent_unit_oom_kills_total')}[15m])", "{{name}} killed in 15 minutes"),
        ],
        width=6,
        decimals=0,
    )

    page.row("Containers")
    by = "by (job, instance, name)"
    page.table(
        "Containers",
        "Running containers. The name leads to the page of the container.",
        [
            f"sum {by} ({rate('container_cpu_usage_seconds_total', named)})",
            f"max {by} ({of('container_memory_working_set_bytes', named)})",
            f"max {by} ({of('container_memory_working_set_bytes', named)} / ({of('container_spec_memory_limit_bytes', named)} > 0))",
            f"sum {by} ({rate('container_network_receive_bytes_total', named)})",
            f"sum {by} ({rate('container_network_transmit_bytes_total', named)})",
            f"sum {by} ({rate('container_fs_reads_bytes_total', named)})",
            f"sum {by} ({rate('container_fs_writes_bytes_total', named)})",
            f"max {by} ({of('container_threads', named)})",
            f"max {by} ({of('system_agent_container_restarts_total')})",
            f"1000 * max {by} ({of('container_start_time_seconds', named)})",
            f"max by (job, instance, name, image) ({of('container_last_seen', named)})",
        ],
        [
            ("name", "container"),
            ("Value #A", "cores", {"unit": "none", "decimals": 2}),
            ("Value #B", "memory", {"unit": "bytes"}),
            ("Value #C", "share of the limit", SHARE),
            ("Value #D", "received", {"unit": "Bps"}),
            ("Value #E", "sent", {"unit": "Bps"}),
            ("Value #F", "read", {"unit": "Bps"}),
            ("Value #G", "written", {"unit": "Bps"}),
            ("Value #H", "processes and threads", {"unit": "none"}),
            ("Value #I", "restarts", colored("none", 1, 5)),
            ("Value #J", "started", {"unit": "dateTimeFromNow"}),
            ("image", "image"),
            ("instance", "host"),
            ("job", "job"),
        ],
        sort=[("Value #A", True)],
        height=11,
        links=[("name", CONTAINER_LINK)],
    )
    page.lines(
        "CPU of containers",
        "short",
        [(f"sum by (name) ({rate('container_cpu_usage_seconds_total', named)})", "{{name}}")],
        width=12,
        stacked=True,
        description="In cores.",
    )
    page.lines(
        "Memory of containers",
        "bytes",
        [(f"sum by (name) ({of('container_memory_working_set_bytes', named)})", "{{name}}")],
        width=12,
        stacked=True,
    )
    page.table(
        "Stopped containers",
        "Containers that do not run. `down` is yes for a container that is meant to run.",
        [
            of("system_agent_stopped_container_down"),
            of("system_agent_stopped_container_exit_code"),
            of("system_agent_stopped_container_oom_killed"),
            f"1000 * {of('system_agent_stopped_container_finish_time_seconds')}",
        ],
        [
            ("name", "container"),
            ("Value #A", "down", {"unit": "bool_yes_no"}),
            ("Value #B", "exit code", {"unit": "none"}),
            ("Value #C", "memory ran out", {"unit": "bool_yes_no"}),
            ("Value #D", "stopped", {"unit": "dateTimeFromNow"}),
            ("image", "image"),
            ("instance", "host"),
            ("job", "job"),
        ],
        sort=[("Value #A", True), ("Value #D", True)],
        links=[("name", CONTAINER_LINK)],
    )

    page.row("Agent")
    page.lines(
        "CPU of the agent",
        "short",
        [(of("system_agent_cpu_ratio"), "agent"), (of("system_agent_engine_cpu_ratio"), "container engine")],
        description="In cores.",
    )
    page.lines(
        "Memory of the agent",
        "bytes",
        [(of("process_resident_memory_bytes"), "resident"), (of("system_agent_memory_anon_bytes"), "anonymous")],
    )
    page.lines("Duration of the sources", "s", [(of("system_agent_source_duration_seconds"), "{{source}}")])
    page.lines(
        "Duration of the collectors",
        "s",
        [(of("node_scrape_collector_duration_seconds"), "{{collector}}")],
        description="How long the figures of each collector were read for a scrape.",
    )
    page.lines("Clients", "none", [(of("system_agent_clients"), "clients that receive snapshots")], decimals=0)
    page.lines(
        "Age of text files",
        "s",
        [(f"time() - {of('node_textfile_mtime_seconds')}", "{{file}}")],
        description="Time since a program wrote the file in TEXTFILE_DIR.",
    )
    return page


def container():
    any_metric = '{__name__=~"container_last_seen|system_agent_container_state|system_agent_stopped_container_info",'
    page = Page(
        CONTAINER,
        "System Agent / Container",
        "One container. Problems come first.",
        [
            prometheus(),
            variable("job", "Job", f'label_values({any_metric}name!=""}}, job)'),
            variable("instance", "Host", f'label_values({any_metric}job="$job",name!=""}}, instance)'),
            variable("container", "Container", f'label_values({any_metric}{ONE_HOST},name!=""}}, name)'),
        ],
        [nav("Fleet", FLEET, "fleet"), nav("Host", HOST, "host")],
    )
    c = ONE_CONTAINER

    def of(metric, *more):
        return f"{metric}{{{','.join((c, *more))}}}"

    def rate(metric, *more):
        return f"rate({of(metric, *more)}{RATE})"

    whole, files = 'scope="container"', 'ulimit="max_open_files"'

    page.row("Problems")
    alerts(page, c, 12)
    container_problems(page, c)

    page.row("Facts")
    page.stat(
        "State",
        "none",
        f"{of('system_agent_container_state')} == 1 or {of('system_agent_stopped_container_info')}",
        "{{state}}",
        width=3,
    )
    page.stat(
        "Health",
        "none",
        f"{of('system_agent_container_health')} == 1",
        "{{status}}",
        width=3,
        description="Empty for a container without a health check.",
    )
    page.stat(
        "Image",
        "none",
        f"topk(1, {of('container_last_seen')} or {of('system_agent_stopped_container_down')})",
        "{{image}}",
        width=6,
    )
    page.stat(
        "Started",
        "dateTimeFromNow",
        f"1000 * max({of('container_start_time_seconds')} or {of('system_agent_stopped_container_start_time_seconds')})",
    )
    page.stat("Created", "dateTimeFromNow", f"1000 * max({of('container_creation_time_seconds')})")
    page.stat(
        "Restarts",
        "none",
        f"max({of('system_agent_container_restarts_total')})",
        thresholds=(1, 5),
        description="Restarts by the restart policy.",
    )
    page.stat(
        "Compose project",
        "none",
        f"topk(1, {of('system_agent_container_info')} or {of('system_agent_stopped_container_info')})",
        "{{compose_project}} {{compose_service}}",
        width=6,
    )
    page.stat("Image digest", "none", f"topk(1, {of('system_agent_container_info')})", "{{image_digest}}", width=6)
    page.stat(
        "Stopped",
        "dateTimeFromNow",
        f"1000 * max({of('system_agent_stopped_container_finish_time_seconds')})",
        description="Empty for a container that runs.",
    )
    page.stat(
        "Exit code",
        "none",
        f"max({of('system_agent_stopped_container_exit_code')})",
        description="Empty for a container that runs.",
    )
    page.stat("Size of the log", "bytes", f"max({of('system_agent_container_log_bytes')})")

    page.row("CPU")
    page.lines(
        "CPU",
        "short",
        [
            (f"sum({rate('container_cpu_usage_seconds_total')})", "used"),
            (f"sum({rate('container_cpu_user_seconds_total')})", "programs"),
            (f"sum({rate('container_cpu_system_seconds_total')})", "kernel"),
            (f"max({of('container_spec_cpu_quota')} / {of('container_spec_cpu_period')})", "limit"),
        ],
        limit=["limit"],
        description="In cores.",
    )
    page.lines(
        "Throttled periods",
        "percentunit",
        [
            (
                f"sum({rate('container_cpu_cfs_throttled_periods_total')}) / (sum({rate('container_cpu_cfs_periods_total')}) > 0)",
                "throttled",
            )
        ],
        max=1,
        description="Share of the periods in which the container used up its CPU limit. Empty for a container without a CPU limit.",
    )
    page.lines(
        "Throttled time",
        "percentunit",
        [(f"sum({rate('container_cpu_cfs_throttled_seconds_total')})", "throttled")],
        description="Time in which tasks of the container could not run because of the CPU limit, in seconds for each second.",
    )

    page.row("Memory")
    page.lines(
        "Memory by kind",
        "bytes",
        [
            (f"max({of('container_memory_rss')})", "programs"),
            (f"max({of('container_memory_cache')})", "cached files"),
            (f"max({of('container_memory_kernel_usage')})", "kernel"),
            (f"max({of('container_memory_swap')})", "swap"),
            (f"max({of('container_spec_memory_limit_bytes')} > 0)", "limit"),
        ],
        stacked=True,
        limit=["limit"],
    )
    page.lines(
        "Working set",
        "bytes",
        [
            (f"max({of('container_memory_working_set_bytes')})", "working set"),
            (f"max({of('container_memory_max_usage_bytes')})", "highest use with all cached files"),
            (f"max({of('container_spec_memory_limit_bytes')} > 0)", "limit"),
        ],
        limit=["limit"],
        description="Memory that the kernel cannot easily take away.",
    )
    page.lines(
        "Page faults",
        "ops",
        [(f"sum by (failure_type) ({rate('container_memory_failures_total', whole)})", "{{failure_type}}")],
    )
    page.lines(
        "Memory limit reached",
        "none",
        [(f"max(increase({of('container_memory_failcnt')}[5m]))", "times in 5 minutes")],
        decimals=0,
    )
    page.lines(
        "Memory ran out",
        "none",
        [(f"max(increase({of('container_oom_events_total')}[5m]))", "killed processes in 5 minutes")],
        decimals=0,
        description="Processes that the kernel killed because memory ran out.",
    )
    page.lines(
        "Restarts over time",
        "none",
        [(f"max(increase({of('system_agent_container_restarts_total')}[5m]))", "restarts in 5 minutes")],
        decimals=0,
    )

    page.row("Network and disks")
    page.lines(
        "Network",
        "Bps",
        [
            (f"sum by (interface) ({rate('container_network_receive_bytes_total')})", "{{interface}} received"),
            (f"sum by (interface) ({rate('container_network_transmit_bytes_total')})", "{{interface}} sent"),
        ],
        description="A container that shares the network of another container has no figures here.",
    )
    page.lines(
        "Packets",
        "pps",
        [
            (f"sum by (interface) ({rate('container_network_receive_packets_total')})", "{{interface}} received"),
            (f"sum by (interface) ({rate('container_network_transmit_packets_total')})", "{{interface}} sent"),
        ],
    )
    page.lines(
        "Network errors and dropped packets",
        "pps",
        [
            (f"sum({rate('container_network_receive_errors_total')})", "errors received"),
            (f"sum({rate('container_network_transmit_errors_total')})", "errors sent"),
            (f"sum({rate('container_network_receive_packets_dropped_total')})", "dropped received"),
            (f"sum({rate('container_network_transmit_packets_dropped_total')})", "dropped sent"),
        ],
    )
    page.lines(
        "Block I/O",
        "Bps",
        [
            (f"sum by (device) ({rate('container_fs_reads_bytes_total')})", "{{device}} read"),
            (f"sum by (device) ({rate('container_fs_writes_bytes_total')})", "{{device}} written"),
        ],
        width=12,
    )
    page.lines(
        "Block I/O operations",
        "iops",
        [
            (f"sum by (device) ({rate('container_fs_reads_total')})", "{{device}} reads"),
            (f"sum by (device) ({rate('container_fs_writes_total')})", "{{device}} writes"),
        ],
        width=12,
    )

    page.row("Processes")
    page.lines(
        "Processes and threads",
        "short",
        [
            (f"max({of('container_threads')})", "processes and threads"),
            (f"max({of('container_processes')})", "processes"),
            (f"max({of('container_threads_max')} > 0)", "limit"),
        ],
        limit=["limit"],
    )
    page.lines(
        "Open files",
        "short",
        [
            (f"max({of('container_file_descriptors')})", "all processes"),
            (f"max({of('container_ulimits_soft', files)} >= 0)", "limit of each process"),
        ],
        description="Open files of all processes. The limit applies to each process.",
        limit=["limit of each process"],
    )
    page.lines(
        "Pressure",
        "percentunit",
        [
            (f"max({rate(f'container_pressure_{resource}_{kind}_seconds_total')})", f"{name}: {tasks}")
            for resource, name in (("cpu", "CPU"), ("memory", "memory"), ("io", "I/O"))
            for kind, tasks in (("waiting", "some tasks waited"), ("stalled", "all tasks waited"))
        ],
        description="Share of the time in which tasks of the container waited. Needs cgroup v2.",
    )
    return page


def main():
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, page in (("fleet", fleet()), ("host", host()), ("container", container())):
        (directory / f"{name}.json").write_text(page.json(), encoding="utf-8")


if __name__ == "__main__":
    main()
