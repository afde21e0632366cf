"""``gan doctor``: what is here, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancore.cli.console import Reporter
from gancore.cli.exits import NO
from gancore.text import table

if TYPE_CHECKING:
    from gancore.ops.library import Device

LEAST_DISK = 1.0
"""GiB of free disk below which a run is likely to stop half-way."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``fix`` says what to do; a finding with ``ok`` False fails the check."""

    name: str
    value: str
    ok: bool = True
    fix: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and installation. Exit code 0: all is well; 1: something is wrong."""
    with Reporter() as reporter:
        reporter.stage("checking")
        findings = examine()
    well = all(finding.ok for finding in findings)
    if as_json:
        document = {"ok": well, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        rows = [("ok" if f.ok else "WRONG", f.name, f.value) for f in findings]
        click.echo(table(rows))
        for finding in findings:
            if finding.fix:
                click.echo(f"{finding.name}: {finding.fix}")
        click.echo("all is well" if well else "something is wrong; see above")
    if not well:
        ctx.exit(NO)


def examine() -> list[Finding]:
    """All findings; a check that fails in an unforeseen way is a finding too."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_software, _torch, _machine, _plugins, _operations)
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(
                Finding(check.__name__.strip("_"), f"{type(error).__name__}: {error}", False, "report this")
            )
    return findings


def _software() -> Iterator[Finding]:
    from gancore import __version__

    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", f"{platform.platform()}, {platform.machine()}")
    yield Finding("gancore", __version__)
    missing = [name for name in _requirements() if _version(name) is None]
    if missing:
        yield Finding("libraries", f"missing: {', '.join(missing)}", False, f"pip install {' '.join(missing)}")
    else:
        yield Finding("libraries", "all present")
    yield Finding("torchvision", _version("torchvision") or "missing")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        yield Finding("torch", why, False, "reinstall it: pip install --force-reinstall torch")
        return
    yield Finding("torch", torch.__version__)
    yield Finding("cpu", f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores")
    yield Finding("threads", f"{torch.get_num_threads()} (set with --threads or OMP_NUM_THREADS)")
    if torch.cuda.is_available():
        yield from _cuda_devices(torch)
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda
        fix = (
            f"torch {torch.__version__} is built for CUDA {built}: update the driver or install another build"
            if built
            else "install a build of torch with CUDA, see pytorch.org"
        )
        yield Finding("devices", "cpu; an NVIDIA driver is here, but torch cannot use it", False, fix)
    else:
        yield Finding("devices", "cpu")
    yield Finding("bf16", _bf16())


def _cuda_devices(torch: Any) -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        try:
            properties = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            torch.ones(8, device=name).sum().item()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            yield Finding(name, first, False, "look at nvidia-smi; another process may hold the device")
            continue
        yield Finding(
            name,
            f"{properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, "
            f"compute {properties.major}.{properties.minor}",
        )


def _bf16() -> str:
    from gancore.compute import choose_device, cpu_flags, has_fast_bf16

    device = choose_device("auto")
    where = "the GPU" if device.type == "cuda" else "this CPU"
    if has_fast_bf16(device):
        return f"fast on {where}: runs on images use it unless told --precision float32"
    if device.type == "cpu" and "avx512_bf16" in cpu_flags():
        return "native on this CPU, without matrix units: measure --precision bf16 with gan plan"
    return f"not native on {where}: runs use float32"


def _machine() -> Iterator[Finding]:
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    free = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    if memory and free:
        yield Finding("memory", f"{int(free[1]) / 2**20:.1f} of {int(memory[1]) / 2**20:.1f} GiB available")
    here = Path.cwd()
    disk = shutil.disk_usage(here).free / 2**30
    enough = disk >= LEAST_DISK
    yield Finding("disk", f"{disk:.1f} GiB free in {here}", enough, "" if enough else "free some space")
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
        yield Finding("folder", f"{here} can be written")
    except OSError as error:
        yield Finding(
            "folder",
            f"{here} cannot be written: {error.strerror}",
            False,
            "go to another folder, or name one with --outdir",
        )


def _plugins() -> Iterator[Finding]:
    from gancore import plugin_manager
    from gancore.cli.plugins import installed

    rows = installed(plugin_manager.discover())
    added = sorted({f"{r['distribution']} {r['version']}" for r in rows if r["distribution"] != "gancore"})
    found = [name for name in added if name != "- -"]
    yield Finding("plugins", ", ".join(found) or "none besides what comes with gancore")
    for row in rows:
        if row["kind"] == "broken":
            name = row["name"]
            fix = f"update or remove its distribution, such as: pip install --upgrade gancore-{name}"
            yield Finding(f"plugin {name}", f"broken: {row['reason']}", False, fix)


def _operations() -> Iterator[Finding]:
    from gancore import plugin_manager
    from gancore.ops.library import DEVICES, cache, mode

    libraries = plugin_manager.discover().libraries.values()
    yield Finding("fused operations", f"GAN_FUSED={mode()}, built files in {cache()}")
    for device in DEVICES:
        here = [library for library in libraries if library.sources(device)]
        missing = [library.name for library in here if not library.built(device)]
        useless = device == "cuda" and len(missing) == len(here) and not shutil.which("nvidia-smi")
        if here and not useless:
            built = f"{len(here) - len(missing)} of {len(here)} libraries built"
            yield Finding(f"operations for {device}", built, fix=_how_to_build(device) if missing else "")


def _how_to_build(device: Device) -> str:
    from gancore.ops.build import BuildError, toolchain

    try:
        toolchain(device)
    except BuildError as error:
        return str(error)
    return "gan ops build"


def _requirements() -> list[str]:
    """The libraries that the core declares, without extras."""
    try:
        declared = importlib.metadata.requires("gancore") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", text)[0] for text in declared if "extra ==" not in text]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
