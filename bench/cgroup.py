"""A memory cgroup of one's own, version 1 or 2: a limit, who was killed for it, what it holds."""

import os
import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Unavailable(Exception):
    """Why there can be no memory cgroup here."""


class MemoryCgroup:
    """Use as a context: made on entry, removed on exit. `enter` is a `preexec_fn` of subprocess."""

    def __init__(self, name: str, limit: int) -> None:
        own = Path("/proc/self/cgroup").read_text()
        self.v1 = re.search(r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$", own, re.M)
        if self.v1:
            parent = ROOT / "memory" / self.v1[1].lstrip("/")
            if not parent.exists():
                # A container often sees its own group as the root.
                parent = ROOT / "memory"
        elif (ROOT / "cgroup.controllers").exists():
            parent = ROOT
            if "memory" not in (ROOT / "cgroup.subtree_control").read_text().split():
                raise Unavailable("the memory controller is not enabled for groups below the root")
        else:
            raise Unavailable("this machine has no memory cgroups")
        self.path = parent / f"{name}-{os.getpid()}"
        self.limit = limit

    def __enter__(self) -> "MemoryCgroup":
        try:
            self.path.mkdir()
            self._file("memory.limit_in_bytes", "memory.max").write_text(str(self.limit))
        except OSError as error:
            raise Unavailable(f"cannot make {self.path}: {error}") from error
        return self

    def __exit__(self, *_) -> None:
        self.path.rmdir()

    def _file(self, one: str, two: str) -> Path:
        return self.path / (one if self.v1 else two)

    def enter(self) -> None:
        """Moves the calling process in."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> int:
        """Processes killed for want of memory so far."""
        text = self._file("memory.oom_control", "memory.events").read_text()
        return int(re.search(r"^oom_kill (\d+)$", text, re.M)[1])

    def stat(self, one: str, two: str) -> int:
        """A line of `memory.stat`, by its names in version 1 and 2, in bytes."""
        text = (self.path / "memory.stat").read_text()
        return int(re.search(rf"^{one if self.v1 else two} (\d+)$", text, re.M)[1])

    def cache(self) -> int:
        """Page cache charged to it."""
        return self.stat("cache", "file")

    def peak(self) -> int | None:
        """Most it held at once, page cache included; `None` where the kernel does not tell."""
        path = self._file("memory.max_usage_in_bytes", "memory.peak")
        return int(path.read_text()) if path.exists() else None
