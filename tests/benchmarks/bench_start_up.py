"""CPU time of ``gan --help`` against ``python -c "import click"``. Target: at most 1.5 times."""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys

from timing import machine, paired


def cpu_of(command: list[str]) -> float:
    """User and system seconds of a finished process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    gan = shutil.which("gan", path=f"{sys.prefix}/bin") or shutil.which("gan")
    if gan is None:
        sys.exit("the command 'gan' is not installed: pip install -e .")
    clock = {"children": 0.0}

    def run(command: list[str]) -> None:
        clock["children"] += cpu_of(command)

    result = paired(
        lambda: run([gan, "--help"]),
        lambda: run([sys.executable, "-c", "import click"]),
        rounds=rounds,
        warm_up=1,
        clock=lambda: clock["children"],
    )
    print(machine())
    print(f"gan --help against import click, CPU: {result.text()}")


if __name__ == "__main__":
    main()
