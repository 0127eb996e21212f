"""Where fixtures live and how MANIFEST.json is written.

MANIFEST.json is what the tests iterate over; tests/fixtures/README.md describes
its fields. Each script owns the cases it makes: writing replaces cases of the
same name and leaves the others alone.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
from pathlib import Path

import numpy as np

SCHEMA = 1


def default_root() -> Path:
    """tests/fixtures of the checkout this script lies in."""
    return Path(__file__).resolve().parents[3] / "tests" / "fixtures"


def seed_of(*parts) -> int:
    """A 64-bit seed that depends on nothing but the words given."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def write_json(path: Path, value) -> None:
    """Indented JSON, except that arrays of plain values stay on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    flat = re.compile(r"\[\s*((?:[-+0-9.eE]+|\"[^\"\n]*\"|true|false|null)(?:,\s*(?:[-+0-9.eE]+|\"[^\"\n]*\"|true|false|null))*)\s*\]")
    text = flat.sub(lambda m: "[" + re.sub(r",\s*\n\s*", ", ", m.group(1)) + "]", text)
    assert json.loads(text) == value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def write_npy(root: Path, relative: str, array: np.ndarray) -> str:
    """A C-order little-endian .npy (version 1.0); returns the path relative to the root."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array))
    return relative


def versions(*packages: str) -> dict:
    """Package versions used, for the manifest."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


class Manifest:
    """MANIFEST.json, read, changed and written back."""

    def __init__(self, root: Path):
        self.path = root / "MANIFEST.json"
        self.value = {"schema": SCHEMA, "versions": {}, "cases": []}
        if self.path.exists():
            self.value = json.loads(self.path.read_text(encoding="utf-8"))
            assert self.value["schema"] == SCHEMA

    def put(self, case: dict) -> None:
        """Adds the case or replaces the one of that name in its place."""
        for i, old in enumerate(self.value["cases"]):
            if old["name"] == case["name"]:
                self.value["cases"][i] = case
                return
        self.value["cases"].append(case)

    def write(self, versions_used: dict) -> None:
        """Writes the file."""
        self.value["versions"] |= versions_used
        write_json(self.path, self.value)
