"""What the scripts that measure a running server share: starting it, asking it, looking into it."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

MIB = 1 << 20


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server of OpenAI's API that is started, waited for, and ended."""

    def __init__(self, command: list[str], url: str, ready: str, patience: float = 120, enter=None):
        self.url = urllib.parse.urlsplit(url)
        self.log = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=enter
        )
        threading.Thread(target=self._drain, daemon=True).start()
        deadline = time.monotonic() + patience
        while self._status(ready) != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                sys.exit(f"{' '.join(command)}\nis not ready\n" + "".join(self.log[-40:]))
            time.sleep(0.05)

    def _drain(self):
        for line in self.process.stderr:
            self.log.append(line)
            del self.log[:-200]

    def _status(self, path: str) -> int:
        try:
            connection = http.client.HTTPConnection(self.url.netloc, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def get(self, path: str) -> dict:
        connection = http.client.HTTPConnection(self.url.netloc, timeout=60)
        connection.request("GET", path)
        return json.load(connection.getresponse())

    def proc(self, name: str) -> int:
        """A line of the process's status, such as VmHWM, in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB$", text, re.M)[1]) * 1024

    def cpu_seconds(self) -> float:
        """Processor time that the process has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def post(self, path: str, body: dict) -> dict:
        connection = http.client.HTTPConnection(self.url.netloc, timeout=600)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            sys.exit(f"POST {path}: {response.status} {text[:500]!r}")
        return json.loads(text)

    def stream(self, path: str, body: dict) -> tuple[float, float, int]:
        """Seconds to the first event with a choice, seconds to the end, tokens generated."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection(self.url.netloc, timeout=600)
        begun = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"POST {path}: {response.status} {response.read()[:500]!r}")
        first, tokens = None, 0
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if first is None and event.get("choices"):
                first = time.perf_counter() - begun
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        return first, time.perf_counter() - begun, tokens

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def bursar(program: str, *arguments: str, enter=None) -> Server:
    """`bursar serve` with these arguments, once all models are loaded; `enter` runs in it first."""
    address = f"127.0.0.1:{free_port()}"
    return Server([program, "serve", "--listen", address, *arguments], f"http://{address}", "/ready", enter=enter)


def synth(program: str, preset: str, folder: Path) -> Path:
    """A synthetic model, written once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (preset.replace(":", "-") + ".gguf")
    if not path.exists():
        subprocess.run([program, "synth", preset, "-o", str(path)], check=True)
    return path


def together(count: int, work) -> list:
    """Runs `work(0)` to `work(count - 1)`, each on a thread, and gives what they return."""
    out = [None] * count

    def run(index):
        out[index] = work(index)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def leaves(node: dict) -> int:
    """What the leaves of the tree of `GET /memory` were granted."""
    return sum(map(leaves, node["children"])) if node["children"] else node["granted_bytes"]
