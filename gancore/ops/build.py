"""Compile libraries of operations, with the compilers that are on this machine. No torch is imported.

The binding is torch's stable ABI: one CPU file and one CUDA file a library, with no Python in them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gancore.errors import GancoreError
from gancore.ops.library import COMMON, STABLE_ABI, Device, OpLibrary

CPU_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # the same bits on every processor; memory is the limit, not arithmetic
)
CUDA_FLAGS = ("-std=c++17", "-O3", "--compiler-options", "-fPIC,-fvisibility=hidden", "--fmad=false")
ARCHITECTURES = ("80", "90")

PROBLEM_LINES = 12
"""Lines of a compiler's output that are shown."""


class BuildError(GancoreError):
    """A library could not be built; the message has the cause (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Toolchain:
    """What compiles for one device."""

    compiler: str
    nvcc: str = ""
    cuda_home: Path = Path()


def build(library: OpLibrary, device: Device, *, force: bool = False) -> Path:
    """Compile a library for a device, unless it is there already.

    Two processes may build at once: the second waits for the first. The file appears in one piece.

    Raises:
        BuildError: no compiler, one that fails, a cache that cannot be written.
    """
    target = library.path(device)
    if target.is_file() and not force:
        return target
    tools = toolchain(device)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock")):
            if target.is_file() and not force:
                return target
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{library.name}-") as work:
                built = _compile(library, device, tools, Path(work))
                os.replace(built, target)
    except OSError as error:
        raise BuildError(
            f"'{library.name}' cannot be built in {target.parent}: {error.strerror or error}; set GAN_OPS_DIR to "
            "a folder that can be written"
        ) from None
    return target


def toolchain(device: Device) -> Toolchain:
    """The compilers for a device.

    Raises:
        BuildError: there is none; the message says what to install.
    """
    named = os.environ.get("CXX")
    found = (
        shutil.which(named) if named else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    )
    if found is None:
        wanted = f"CXX = {named!r} is not on the PATH" if named else "there is no g++ or clang++ on the PATH"
        raise BuildError(f"no C++ compiler: {wanted}; install one (Debian, Ubuntu: apt install g++), or set CXX")
    if device == "cpu":
        return Toolchain(found)
    nvcc = shutil.which("nvcc") or ""
    home = os.environ.get("CUDA_HOME", "")
    if not nvcc and home and Path(home, "bin", "nvcc").is_file():
        nvcc = str(Path(home, "bin", "nvcc"))
    if not nvcc:
        raise BuildError("no CUDA compiler: nvcc is not on the PATH; install the CUDA toolkit, or set CUDA_HOME")
    return Toolchain(found, nvcc, Path(home) if home else _cuda_home(nvcc))


@functools.cache
def _cuda_home(nvcc: str) -> Path:
    """The toolkit's own root; nvcc on the PATH may be a wrapper that lies elsewhere."""
    with tempfile.NamedTemporaryFile(suffix=".cu") as empty:
        said = subprocess.run([nvcc, "--dryrun", "-c", empty.name], capture_output=True, text=True, check=False)
    top = re.search(r"^#\$ TOP=(.+)$", said.stderr, re.MULTILINE)
    return Path(top[1].strip()).resolve() if top else Path(nvcc).resolve().parent.parent


def torch_folder() -> Path:
    """Where torch is installed; found, not imported."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise BuildError("torch is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def _compile(library: OpLibrary, device: Device, tools: Toolchain, work: Path) -> Path:
    torch = torch_folder()
    include = [f"-I{COMMON}", f"-isystem{torch / 'include'}"]
    define = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}"]
    objects: list[str] = []
    for index, source in enumerate(library.sources(device)):
        out = str(work / f"{index}.o")
        if source.suffix == ".cu":
            targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
            targets.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
            environment = {"CUDA_HOME": str(tools.cuda_home)}
            command = [tools.nvcc, *CUDA_FLAGS, *targets, f"-I{COMMON}", "-c", str(source), "-o", out]
        else:
            cuda = [f"-isystem{tools.cuda_home / 'include'}", "-DUSE_CUDA"] if device == "cuda" else []
            environment = {}
            command = [tools.compiler, *CPU_FLAGS, *define, *include, *cuda, "-c", str(source), "-o", out]
        _run(library, command, environment)
        objects.append(out)
    built = work / "library.so"
    libraries = ["-ltorch_cpu"] if device == "cpu" else ["-ltorch", "-ltorch_cpu", "-lcudart"]
    places = [f"-L{torch / 'lib'}", *([f"-L{tools.cuda_home / 'lib64'}"] if device == "cuda" else [])]
    _run(library, [tools.compiler, "-shared", *objects, "-o", str(built), *places, *libraries], {})
    return built


def _run(library: OpLibrary, command: list[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **environment, "LC_ALL": "C"}
        )
    except OSError as error:
        raise BuildError(f"'{library.name}': {command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines
        shown = "\n  ".join(errors[:PROBLEM_LINES])
        raise BuildError(
            f"'{library.name}': {Path(command[0]).name} failed with exit code {done.returncode}:\n  {shown}\n"
            f"command: {shlex.join(command)}"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    if sys.platform == "win32":
        raise BuildError("fused operations are not built on Windows; the reference paths are used")
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
