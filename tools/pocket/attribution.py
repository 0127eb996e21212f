"""Writes the table of what the models were trained and tested on.

    python attribution.py CORPUS OUT.md
"""

import json
import re
import sys
from pathlib import Path

HEAD = """# Sources

What pocket-chat and pocket-embed were trained on, and what was kept for their tests only. Written by
`tools/pocket/attribution.py`. Of each source only documented items were taken (doc comment, signature
and the function under it), of books the pages. "Taken" counts characters after duplicates were dropped;
what another source had first counts there.
"""


def main() -> None:
    sources = json.loads((Path(sys.argv[1]) / "sources.json").read_text())
    lines = [HEAD]
    groups = (
        ("Books and libraries of the Rust toolchain, Python", lambda s: not s["origin"].startswith("crates.io")),
        ("Crates trained on", lambda s: s["origin"].startswith("crates.io") and not s["held_out"]),
        ("Crates never trained on (tests only)", lambda s: s["held_out"]),
    )
    for title, chosen in groups:
        lines += [f"## {title}", "", "| source | licence | origin | files | taken |", "|---|---|---|---:|---:|"]
        for s in sources:
            if chosen(s) and s["chars_taken"]:
                origin = re.sub(r"\s*<[^>]*>", "", s["origin"].removeprefix("crates.io, ")).replace("|", "/")
                lines.append(f"| {s['name']} | {s['licence']} | {origin} | {s['files']} | {s['chars_taken']:,} |")
        lines.append("")
    Path(sys.argv[2]).write_text("\n".join(lines))


if __name__ == "__main__":
    main()
