#!/usr/bin/env python3
"""How many requests of a realistic mix share their sampling parameters.

    python bench/params_mix.py [--bursar target/release/bursar] [--mix bench/params_mix.json]

Draws the requests of the mix from its seed, sends each over HTTP to a server with the bundled chat
model, 8 at a time, and prints what `params` of its `GET /memory` says then: requests, different
parameters, the share that found theirs there, and bytes. Half of the requests bring a random seed,
which is the request's own and no part of what is shared. Exits 1 below 60 %, or if the figures are not
those that follow from the requests sent.
"""

import argparse
import json
import random
import sys
from pathlib import Path

from serving import bursar, together

CLIENTS = 8
GOAL = 0.60


def drawn(mix: dict) -> list[dict]:
    """The requests of a mix."""
    draw = random.Random(mix["seed"])
    weights = [profile["weight"] for profile in mix["profiles"]]
    requests = []
    for profile in draw.choices(mix["profiles"], weights, k=mix["requests"]):
        fields = {
            name: draw.choice(value) if isinstance(value, list) else value
            for name, value in profile.get("fields", {}).items()
        }
        for name, (least, most, step) in profile.get("slider", {}).items():
            fields[name] = round(least + step * draw.randrange(round((most - least) / step) + 1), 4)
        if profile.get("seeded") or draw.random() < 0.4:
            fields["seed"] = draw.randrange(1 << 31)
        requests.append(fields)
    return requests


def chosen(fields: dict) -> str:
    """What a request shares with those that ask the same: how tokens are chosen, but for the seed."""
    own = {"seed", "n", "logprobs"}
    return json.dumps({name: value for name, value in fields.items() if name not in own}, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--mix", type=Path, default=Path(__file__).parent / "params_mix.json")
    parser.add_argument("--json", type=Path, help="write the figures as a sheet")
    args = parser.parse_args()
    requests = drawn(json.loads(args.mix.read_text()))
    server = bursar(args.bursar, "--parallel", str(CLIENTS))
    chat = next(m["id"] for m in server.get("/memory")["models"] if "chat" in m["id"])

    def client(index: int) -> None:
        for fields in requests[index::CLIENTS]:
            server.post("/v1/completions", {"model": chat, "prompt": "The ledger", "max_tokens": 2, **fields})

    together(CLIENTS, client)
    params = server.get("/memory")["params"]
    server.stop()
    # Where a request says what holds anyway, it is the same as saying nothing: there may be a few less.
    different = len({chosen(fields) for fields in requests})
    print(
        f"{params['requests_total']} requests, {params['unique']} different parameters kept in {params['bytes']} bytes: "
        f"{params['dedup_ratio']:.1%} found theirs there (goal: at least {GOAL:.0%})"
    )
    if args.json:
        figure = {"unit": "", "median": params["dedup_ratio"], "goal": f">= {GOAL}", "met": params["dedup_ratio"] >= GOAL}
        sheet = {
            "bench": "params_mix",
            "setting": {"requests": len(requests), "clients": CLIENTS},
            "figures": {
                "dedup_ratio": figure,
                "unique": {"unit": "values", "median": params["unique"]},
                "bytes": {"unit": "bytes", "median": params["bytes"]},
            },
        }
        args.json.write_text(json.dumps(sheet, indent=1) + "\n")
    checks = {
        "every request was counted": params["requests_total"] == len(requests),
        "who found nothing is who is kept": params["requests_total"] - params["hits_total"] == params["unique"],
        "no more are kept than are different": params["unique"] <= different,
        "at least 60 % found theirs there": params["dedup_ratio"] >= GOAL,
    }
    for check, good in checks.items():
        print(f"{'ok  ' if good else 'MISS'} {check}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
