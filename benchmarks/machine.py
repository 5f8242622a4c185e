"""The machine of the figures (processor, cores, versions; no names, no paths), and how busy it is."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe() -> dict:
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """The model as the system names it, with the instruction sets that matter for a matrix product."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    sets = [
        name
        for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("amx_tile", "AMX"))
        if flag in flags
    ]
    return ", ".join([facts.get("model name", platform.machine()), *sets])


def card() -> str | None:
    """The first GPU's name, memory and driver, as reported by nvidia-smi; None without a GPU."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    if not answer:
        return None
    name, memory, driver = (part.strip() for part in answer[0].split(","))
    return f"{name} ({memory}, driver {driver})"


def usable_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(packages) -> dict[str, str]:
    """The installed versions; a package that is absent is left out."""
    found = {}
    for package in sorted(set(packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def busy_seconds() -> float | None:
    """Seconds that all cores together have been busy so far; None where the system does not report it."""
    file = Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system, _idle, _wait, interrupt, soft_interrupt, stolen = map(
        int, file.read_text().split()[1:9]
    )
    return (user + nice + system + interrupt + soft_interrupt + stolen) / os.sysconf("SC_CLK_TCK")


class ForeignLoad:
    """How many cores, on average, other processes have kept busy since this was made."""

    def __init__(self):
        self.start = (time.perf_counter(), busy_seconds(), time.process_time())

    def cores(self) -> float:
        """0.0 where the system does not report it. The clock ticks make it uncertain by a few hundredths."""
        start, busy, own = self.start
        if busy is None:
            return 0.0
        foreign = (busy_seconds() - busy) - (time.process_time() - own)
        return max(0.0, foreign / (time.perf_counter() - start))


def environment(**settings: str) -> dict[str, str]:
    """The variables for a peer's process. Settings of OpenBLAS that slow NumPy's products down are left out.

    Byte code is cached whatever the surroundings say: no peer is to be compiled again at every import.
    """
    left_out = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in left_out} | settings


def compiler_caches(folder: Path) -> dict[str, str]:
    """The variables that make compilers keep what they compile in a folder: at first there is nothing."""
    return {"MINIDL_CACHE": str(folder / "minidl"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}


def resident_memory() -> int:
    """Bytes of resident memory of this process now; the peak is counted from here on, where that can be."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return _of_status(status, "VmRSS")


def peak_memory() -> int:
    """Most bytes of resident memory of this process so far.

    Linux carries `ru_maxrss` over from the parent at `exec`; VmHWM starts from zero.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return _of_status(status, "VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_status(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
