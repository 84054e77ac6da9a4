"""What a result was computed with, and how much memory it took."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def on_cpu() -> bool:
    """Whether JAX computes on CPU, where other ways are fast than on accelerators."""
    return jax.default_backend() == "cpu"


def cores() -> int:
    """Cores of the CPU that this process may run on."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(allowed) or os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of the packages that decide about the numbers."""
    packages = ("fairdd-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from a source tree


def describe() -> dict[str, Any]:
    """Versions, device, cores and source commit."""
    device = jax.devices()[0]
    return {
        **versions(),
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "num_devices": jax.device_count(),
        "cores": cores(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Commit of the checkout that holds the package or the program, None if neither is in one.

    A file that git does not track, as in an installed package, says nothing about the repository
    that its folder happens to lie in.
    """

    def git(file: Path, *arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    for file in (Path(__file__), Path(sys.argv[0]).absolute()):
        try:
            git(file, "ls-files", "--error-unmatch", file.name)
            return git(file, "rev-parse", "HEAD")
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def peak_memory() -> int:
    """Bytes: the device's own count where it keeps one, else the process's resident peak."""
    statistics_of_device = jax.local_devices()[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return int(statistics_of_device.get("peak_bytes_in_use", resident * unit))


def memory_limit() -> int:
    """Bytes that `peak_memory` can grow to: of the device, of the machine or of a control group."""
    statistics_of_device = jax.local_devices()[0].memory_stats() or {}
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(statistics_of_device.get("bytes_limit", min(physical, *_group_limits())))


def _group_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Limits in bytes of the control groups, of version 1 or 2, that the process is in."""
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            # A group has no limit ("max"), or is one of the host that a container does not see.
            with contextlib.suppress(OSError, ValueError):
                yield int(
                    (group / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text()
                )
            if group == top:
                break
