"""Whose fault an exception is: the method, hook, phase and step that were running."""

from __future__ import annotations

import torch

from gancore.errors import DeviceError, GancoreError, PluginError
from gancore.step import Step

CORE = "gancore"
"""Stands for the core where a key or an error names a method."""


class attributed:
    """Turn an exception of a method into an error that names plugin, hook, phase and step."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        step = self._step
        if isinstance(error, torch.OutOfMemoryError):
            raise DeviceError(
                f"out of memory in phase '{step.phase}', step {step.index}: lower --batch or the widths of the "
                f"network, or set compute.micro_batch_{step.phase[0]} ({str(error).splitlines()[0]})"
            ) from error
        if not isinstance(error, Exception) or isinstance(error, GancoreError) or step.caller in ("", CORE):
            return
        raise PluginError(
            f"plugin '{step.caller}' raised in '{step.doing}' (phase '{step.phase}', step {step.index}): "
            f"{type(error).__name__}: {error}"
        ) from error
