#!/usr/bin/env python3
"""Whether a real Prometheus takes the files in deploy/prometheus, scrapes a real server, and raises an alert.

    cargo build -p bursar && python3 deploy/test.py target/debug/bursar

Needs Debian's package prometheus (apt-get install prometheus), and installs nothing itself. Both programs run on
free ports of this machine and end with the script. The rules are those that are committed, but for the time that
an alert must hold: a second. Two alerts are brought about: requests that find the queue full, and a server that
is gone.
"""

import concurrent.futures
import http.client
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
# Most seconds to wait for any one thing.
PATIENCE = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(port, path, body=None):
    """Status and body, or None where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except OSError:
        return None
    finally:
        connection.close()


def until(what, found):
    """Looks again and again until `found` gives something, and gives that."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        if value := found():
            print(f"{what}: {time.monotonic() - begun:.1f} s")
            return value
        time.sleep(0.1)
    sys.exit(f"not within {PATIENCE} s: {what}")


def promtool(*arguments):
    ran = subprocess.run(["promtool", *arguments], cwd=HERE / "prometheus", capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"promtool {' '.join(arguments)}\n{ran.stdout}{ran.stderr}")
    print(f"promtool {' '.join(arguments)}: accepted")


def settings(folder, target):
    """The committed configuration with another target, and with rules that need not hold for minutes."""
    config = (HERE / "prometheus/prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8080", target)
    config = re.sub(r"_interval: \d+s", "_interval: 1s", config)
    rules = (HERE / "prometheus/rules.yml").read_text()
    rules = re.sub(r"for: \d+m", "for: 1s", rules)
    (folder / "prometheus.yml").write_text(config)
    (folder / "rules.yml").write_text(rules)


def firing(prometheus, name):
    """The alert of that name, if it fires."""
    reply = ask(prometheus, "/api/v1/alerts")
    alerts = json.loads(reply[1])["data"]["alerts"] if reply and reply[0] == 200 else []
    return next((a for a in alerts if a["labels"]["alertname"] == name and a["state"] == "firing"), None)


def scraped(prometheus):
    reply = ask(prometheus, "/api/v1/query?query=bursar_memory_granted_bytes")
    results = json.loads(reply[1])["data"]["result"] if reply and reply[0] == 200 else []
    return results and int(results[0]["value"][1])


def dashboard(prometheus):
    """Asks every expression of the dashboard, and says how many of them gave something."""
    panels = json.loads((HERE / "grafana/bursar.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    some = 0
    for expression in expressions:
        plain = expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$model", ".*")
        status, body = ask(prometheus, "/api/v1/query?" + urllib.parse.urlencode({"query": plain}))
        if status != 200:
            sys.exit(f"the dashboard asks {expression}: {body.decode()}")
        some += bool(json.loads(body)["data"]["result"])
    print(f"dashboard: {len(expressions)} expressions, {some} with values")


def crowd(server):
    """More requests at once than one place and a queue of one hold; true if some were refused."""
    body = {"model": "pocket-chat", "prompt": "The", "max_tokens": 64, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda _: ask(server, "/v1/completions", body), range(8))
        return any(reply and reply[0] == 429 for reply in replies)


def show(alert):
    print(f"firing: {alert['labels']['alertname']}: {alert['annotations']['summary']}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not found: apt-get install prometheus")
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "rules_test.yml")
    server_port, prometheus_port = free_port(), free_port()
    target = f"127.0.0.1:{server_port}"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        settings(folder, target)
        server = subprocess.Popen(
            [pathlib.Path(sys.argv[1]).resolve(), "serve", "--memory", "512MiB", "--listen", target, "--limits-queue", "1"],
            cwd=folder, stderr=subprocess.DEVNULL,
        )
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{prometheus_port}", "--log.level=error"],
            cwd=folder,
        )
        try:
            until("the server is ready", lambda: (ask(server_port, "/ready") or [0])[0] == 200)
            granted = until("Prometheus has scraped it", lambda: scraped(prometheus_port))
            print(f"granted, as Prometheus has it: {granted} bytes")

            def refused():
                crowd(server_port)
                return firing(prometheus_port, "BursarRefusesForMemory")

            show(until("an alert fires while requests are refused", refused))
            dashboard(prometheus_port)
            server.terminate()
            server.wait(PATIENCE)
            show(until("an alert fires when the server is gone", lambda: firing(prometheus_port, "BursarDown")))
        finally:
            for process in (server, prometheus):
                process.terminate()
                process.wait(PATIENCE)
    print("ok")


if __name__ == "__main__":
    main()
