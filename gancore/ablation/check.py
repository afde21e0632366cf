"""Before an ablation runs: build every arm once, and measure once, in a process of its own that imports torch.

``python -m gancore.ablation.check`` reads a request from stdin and writes an answer to stdout, both JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancore.errors import ConfigError, GancoreError


@dataclass(frozen=True)
class Answer:
    """What building the arms has shown.

    Attributes:
        problems: by arm that cannot be built: exit code and message. digests: of the data of each other arm.
        metrics: that the untrained baseline has, if it was measured.
    """

    problems: dict[str, tuple[int, str]]
    digests: dict[str, str]
    metrics: tuple[str, ...] = ()


class CheckError(GancoreError):
    """The check ended with an error that is not an arm's; it has the exit code of that error."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def check(
    configs: Mapping[str, Path],
    baseline: str,
    observers: Sequence[str],
    options: Mapping[str, Any],
    devices: Sequence[str] = (),
) -> Answer:
    """Build every configuration with its data and networks, and measure the untrained baseline.

    Args:
        configs: files of configurations by arm; the baseline is measured when it is among them.
        observers, options: who measures, and with which dotted options. devices: that have to be there.

    Raises:
        CheckError: nothing can be measured, a device is missing, or the process died.
    """
    request = {
        "configs": {name: str(path) for name, path in configs.items()},
        "baseline": baseline,
        "observers": list(observers),
        "devices": list(devices),
        "options": {key: value for key, value in options.items() if value is not None},
    }
    done = subprocess.run(
        [sys.executable, "-m", "gancore.ablation.check"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and no word"])[-1]
        raise CheckError(f"the arms could not be checked: {last}", 1) from None
    if "error" in answer:
        raise CheckError(answer["error"], answer["code"])
    problems = {name: (code, text) for name, (code, text) in answer["problems"].items()}
    return Answer(problems, answer["digests"], tuple(answer.get("metrics", ())))


def answer_to(request: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`check` is told; in the process that builds."""
    import dataclasses

    from gancore.assembly import assemble
    from gancore.compute import choose_device
    from gancore.config import load_file, resolve
    from gancore.data import open_dataset
    from gancore.data.dataset import Dataset
    from gancore.plugin_manager import discover

    try:
        for device in request["devices"]:
            choose_device(device)
    except GancoreError as error:
        return {"error": str(error), "code": error.exit_code}
    registry = discover()
    datasets: dict[object, Dataset] = {}
    problems: dict[str, tuple[int, str]] = {}
    digests: dict[str, str] = {}
    for name, path in request["configs"].items():
        try:
            config = resolve(registry, load_file(path))
            key = dataclasses.astuple(config.data)
            if key not in datasets:
                datasets[key] = open_dataset(config.data)
            session = assemble(config, registry, dataset=datasets[key])
        except GancoreError as error:
            problems[name] = (error.exit_code, str(error))
            continue
        digests[name] = session.dataset.digest
        session.close()
    answer: dict[str, Any] = {"problems": problems, "digests": digests}
    if request["baseline"] in digests:
        answer |= _measured(request, registry, datasets)
    for dataset in datasets.values():
        dataset.close()
    return answer


def _measured(request: Mapping[str, Any], registry: Any, datasets: Mapping[object, Any]) -> dict[str, Any]:
    """The metrics of the untrained baseline, or an error when the observers cannot measure it."""
    import dataclasses

    from gancore.assembly import assemble
    from gancore.config import load_file, resolve
    from gancore.evaluation import evaluate

    layers = [*load_file(request["configs"][request["baseline"]])]
    layers.append(("ablation", {"plugins": request["observers"], **request["options"]}))
    try:
        config = resolve(registry, layers)
        session = assemble(config, registry, dataset=datasets[dataclasses.astuple(config.data)])
        try:
            found = evaluate(session)
        finally:
            session.close()
        if not found.scores:
            names = ", ".join(request["observers"])
            raise ConfigError(f"{names} measured nothing on this data: name other observers with -p")
    except GancoreError as error:
        return {"error": f"measuring fails: {error}", "code": error.exit_code}
    return {"metrics": list(found.scores)}


if __name__ == "__main__":
    print(json.dumps(answer_to(json.load(sys.stdin))))
