"""What a result was computed with, and how much memory it took."""

import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def versions() -> dict[str, str]:
    """Versions of the packages that decide about the numbers."""
    packages = ("fairdd-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {package: metadata.version(package) for package in packages}


def describe() -> dict[str, Any]:
    """Versions, device and source commit."""
    device = jax.devices()[0]
    return {
        **versions(),
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "num_devices": jax.device_count(),
        "platform": platform.platform(terse=True),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Commit of the source tree, None where there is no checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory() -> int:
    """Bytes: the device's own count where it keeps one, else the process's resident peak."""
    statistics_of_device = jax.devices()[0].memory_stats() or {}
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(statistics_of_device.get("peak_bytes_in_use", kibibytes * 1024))
