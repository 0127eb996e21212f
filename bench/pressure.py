"""What the server does when others in its memory cgroup take the room that its budget needs.

Serves the bundled models within `--memory` in a cgroup of twice that, fills the cache of keys and
values, then has a neighbour in the same group take more and more. Prints for each step the level, how
soon it was told, what was resident before and after, the rungs that were taken, and how a request was
answered; at the end, how soon requests are taken again once the neighbour has gone. Nothing may be
killed. Before all that, the processor time that the server takes when nobody asks anything.

    python bench/pressure.py --bursar target/release/bursar
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cgroup import MemoryCgroup, Unavailable

MIB = 1 << 20
PAGE = 4096
# Seconds for which the server is left alone first.
IDLE = 30
NEIGHBOUR = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * int(line))
    print(len(held), flush=True)
"""


def get(address: str, path: str) -> dict:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return json.load(answer)


def ask(address: str, words: str) -> str:
    """The status of a request, and the code of its error."""
    body = {"model": "pocket-chat", "prompt": words, "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"http://{address}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        told = json.load(error)["error"]
        after = error.headers["Retry-After"]
        assert told["memory"]["budget_bytes"] > 0
        return f"{error.code} {told['code']}, Retry-After {after}"


def serve(bursar: str, memory: int, group: MemoryCgroup) -> tuple[subprocess.Popen, str]:
    command = [bursar, "serve", "--memory", f"{memory}MiB", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=group.enter
    )
    for line in server.stderr:
        if "at http://" in line:
            return server, line.split("at http://")[1].split(" ")[0]
    raise SystemExit("the server ended before it served")


def resident(server: subprocess.Popen) -> float:
    with open(f"/proc/{server.pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE / MIB


def processor(server: subprocess.Popen) -> float:
    """Seconds of a core that it has used."""
    with open(f"/proc/{server.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def level(address: str, wanted: str) -> float:
    """Seconds until the level outside is what is wanted; 10 at most."""
    start = time.monotonic()
    while time.monotonic() - start < 10:
        if get(address, "/memory")["pressure_detail"]["outside"] == wanted:
            return time.monotonic() - start
        time.sleep(0.02)
    return float("nan")


def rungs(address: str) -> dict[str, tuple[int, int]]:
    found = get(address, "/memory")["reclaim"]["rungs"]
    return {r["rung"]: (r["times_total"], r["returned_bytes_total"]) for r in found}


def measure(bursar: str, memory: int, group: MemoryCgroup) -> int:
    kills = group.kills()
    server, address = serve(bursar, memory, group)
    command = [sys.executable, "-c", NEIGHBOUR]
    pipe = subprocess.PIPE
    neighbour = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, preexec_fn=group.enter
    )
    try:
        used = processor(server)
        time.sleep(IDLE)
        share = (processor(server) - used) / IDLE
        print(f"idle: {share:.2%} of a core over {IDLE} s")
        for number in range(16):
            ask(address, f"{number} " + "The miller mended a ledger in the morning. " * 40)
        print(f"{'share':>6} {'level':>9} {'after s':>8} {'RSS MiB':>15}  request, rungs")
        for share, wanted in [(0.75, "elevated"), (0.88, "high"), (0.97, "critical")]:
            before, taken = resident(server), rungs(address)
            usage = group.stat("total_rss", "anon")
            more = int(share * group.limit) - usage
            neighbour.stdin.write(f"{more}\n")
            neighbour.stdin.flush()
            neighbour.stdout.readline()
            after = level(address, wanted)
            status = ask(address, "The miller mended")
            now = rungs(address)
            new = [
                f"{name} x{times - taken[name][0]} {(size - taken[name][1]) / MIB:.1f} MiB"
                for name, (times, size) in now.items()
                if times > taken[name][0]
            ]
            rss = f"{before:.1f} > {resident(server):.1f}"
            print(f"{share:>6.0%} {wanted:>9} {after:>8.2f} {rss:>15}  {status}; {', '.join(new)}")
        neighbour.stdin.close()
        neighbour.wait()
        after = level(address, "normal")
        print(f"alone again: normal after {after:.2f} s, request {ask(address, 'The miller')}")
    finally:
        neighbour.kill()
        neighbour.wait()
        server.terminate()
        server.wait()
    killed = group.kills() - kills
    print(f"killed: {killed}")
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    given = parser.parse_args()
    try:
        with MemoryCgroup("bursar-pressure", 2 * given.memory * MIB) as group:
            killed = measure(given.bursar, given.memory, group)
    except Unavailable as why:
        print(f"SKIPPED: {why}")
        return
    sys.exit(1 if killed else 0)


if __name__ == "__main__":
    main()
