#!/usr/bin/env python3
"""Sends figures and log lines of real containers to a real Prometheus and a real VictoriaLogs, and compares what they have stored.

    try.py AGENT VICTORIA_LOGS [PROMETHEUS]

The arguments are the programs. Without Prometheus, only log lines are sent. tests/setup/try-receivers.sh builds the programs and starts the
Docker engine. Prints a table. Fails if a row differs.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

IMAGE = "system-agent-test:latest"
CONTAINERS = 5
LINES = 300
KEY = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
# Writes numbered lines, every third to stderr.
SCRIPT = f"""i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); text="line $i"
case $((i % 3)) in 0) echo "$text" >&2;; *) echo "$text";; esac; [ $((i % 20)) = 0 ] && sleep 0.2; done; sleep 1000"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, **query):
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return answer.read().decode()


def wait_for(what, seconds, check):
    """Returns the first result of `check` that is not None or False."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if result := check():
                return result
        if time.monotonic() > end:
            sys.exit(f"error: waited {seconds} s for {what}")
        time.sleep(0.3)


@contextlib.contextmanager
def running(arguments, log, **variables):
    with open(log, "w") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, env={**os.environ, **variables})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def containers():
    names = [f"system-agent-try-{os.getpid()}-{number}" for number in range(CONTAINERS)]
    try:
        for name in names:
            command = ["docker", "run", "-d", "--network", "none", "--name", name, IMAGE, "sh", "-c", SCRIPT]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield names
    finally:
        subprocess.run(["docker", "rm", "-f", *names], stdout=subprocess.DEVNULL, check=False)


def snapshot(port):
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(f"{KEY}\n".encode())
        return json.loads(client.makefile().readline())


def numbers_in_store(url, name):
    """Returns the numbers of the lines in VictoriaLogs, and the streams, sorted by number."""
    text = get(f"{url}/select/logsql/query", query=f'"container.name":="{name}"', limit=10 * LINES)
    # The events of the container have its name too.
    entries = [entry for entry in map(json.loads, text.splitlines()) if entry["_msg"].startswith("line ")]
    return sorted((int(entry["_msg"].split()[1]), entry.get("log.iostream")) for entry in entries)


def compare_metrics(metrics, now, names, row):
    """Compares the figures in Prometheus with those of a snapshot."""
    of_name = {one["name"].lstrip("/"): one for one in now["containers"]}

    def values(query):
        answer = json.loads(get(f"{metrics}/api/v1/query", query=query))
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def of_containers(query):
        found = {labels.get("container_name"): value for labels, value in values(query)}
        return {name: found.get(name) for name in names}

    def snapshots_figure(field):
        return {name: float(of_name[name][field]) for name in names}

    # The snapshot has MiB with two decimal places.
    row("Prometheus: system_memory_limit_bytes", [now["system"]["memory_total"]],
        [round(value / 1024 / 1024, 2) for _, value in values("system_memory_limit_bytes")])
    row("Prometheus: system_cpu_logical_count", [float(now["host"]["cpus"])],
        [value for _, value in values("system_cpu_logical_count")])
    row("Prometheus: container_memory_working_set_bytes of each container", snapshots_figure("memory_usage"),
        of_containers("container_memory_working_set_bytes"))
    row("Prometheus: threads of each container", snapshots_figure("pids"),
        of_containers('{__name__=~"system_agent_container_threads|system_agent_container_threads_total"}'))
    created = values("system_process_created_total")
    row("Prometheus: system_process_created_total is there", True, bool(created) and created[0][1] > 0)


def main():
    agent, victoria_logs, *prometheus = sys.argv[1:]
    rows = []

    def row(what, expected, found):
        rows.append((what, expected, found, expected == found))

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {name: free_port() for name in ("prometheus", "logs", "agent")}
        config = folder / "prometheus.yml"
        config.write_text("otlp:\n  promote_resource_attributes: [host.name, container.name]\n")
        metrics = f"http://127.0.0.1:{ports['prometheus']}"
        logs = f"http://127.0.0.1:{ports['logs']}"
        if prometheus:
            stack.enter_context(running([
                *prometheus, "--web.enable-otlp-receiver", f"--config.file={config}", f"--storage.tsdb.path={folder}/metrics",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}"], folder / "prometheus.log"))
            wait_for("Prometheus", 60, lambda: get(f"{metrics}/-/ready"))
        stack.enter_context(running([
            victoria_logs, f"-httpListenAddr=127.0.0.1:{ports['logs']}", f"-storageDataPath={folder}/logs"], folder / "logs.log"))
        wait_for("VictoriaLogs", 60, lambda: get(f"{logs}/health"))
        stack.enter_context(running([agent, "run"], folder / "agent.log", **{
            "API_KEY": KEY, "SOCKET_ADDRESS": "127.0.0.1", "SOCKET_PORT": str(ports["agent"]), "PUBLISH_INTERVAL": "1s",
            "OTLP_POINT_ATTRIBUTES": "none", "OTLP_SIGNALS": "metrics,logs,events" if prometheus else "logs,events",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{metrics}/api/v1/otlp/v1/metrics",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{logs}/insert/opentelemetry/v1/logs"}))
        wait_for("the agent", 20, lambda: snapshot(ports["agent"])["status"] == "ok")
        names = stack.enter_context(containers())
        for name in names:
            wait_for(f"the lines of {name}", 60, lambda name=name: len(numbers_in_store(logs, name)) >= LINES)
        # A line that arrives twice would come now.
        time.sleep(5)
        expected = [(number, "stdout" if number % 3 else "stderr") for number in range(1, LINES + 1)]
        for name in names:
            found = numbers_in_store(logs, name)
            row(f"VictoriaLogs: each line of {name} once, with its stream", f"{LINES} lines",
                f"{LINES} lines" if found == expected else f"{len(found)} lines, not the same")

        if prometheus:
            compare_metrics(metrics, snapshot(ports["agent"]), names, row)
        health = wait_for("the health", 20, lambda: snapshot(ports["agent"])["outputs"]["otlp"])
        row("the agent: outputs.otlp", ("ok", 0), (health["status"], health["dropped"]))

    print("| checked | result |\n|---|---|")
    for what, expected, found, is_same in rows:
        print(f"| {what} | {'the same' if is_same else f'**differs**: expected {expected}, found {found}'} |")
    sys.exit(not all(is_same for *_, is_same in rows))


main()
