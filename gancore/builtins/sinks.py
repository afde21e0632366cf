"""The sinks that come with gancore: TensorBoard, and Weights & Biases. Each needs its extra."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gancore.atomic import write_atomic
from gancore.sinks import SinkRun


class TensorBoard:
    """Event files in ``RUN/tensorboard``, for ``tensorboard --logdir RUN``."""

    def __init__(self, run: SinkRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        # Steps from here on are sent again: TensorBoard hides what an earlier session sent of them.
        again = (run.step + 1 if run.step else 0) if folder.exists() else None
        self._writer = SummaryWriter(str(folder), purge_step=again)
        self._protocols: dict[str, str] = {}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Under their own names."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def evaluation(
        self, step: int, values: Mapping[str, float], protocols: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Below ``metrics/``; a protocol as a table of text, when it is new."""
        for name, value in values.items():
            self._writer.add_scalar(f"metrics/{name}", value, step)
            facts = [f"| {key} | {fact} |" for key, fact in sorted(protocols.get(name, {}).items())]
            text = "\n".join(["| fact | value |", "|---|---|", *facts])
            if self._protocols.get(name) != text:
                self._protocols[name] = text
                self._writer.add_text(f"protocol/{name}", text, step)

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """As an image; TensorBoard shows no captions."""
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flush to disk."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, whose id is kept in ``RUN/wandb.json``, so that a resume continues it.

    The account, project, mode and all else are set as for any program: ``wandb login``, ``WANDB_PROJECT``,
    ``WANDB_MODE=offline``. The project is ``gancore`` when none is set.
    """

    def __init__(self, run: SinkRun) -> None:
        import wandb

        self._wandb = wandb
        kept = run.folder / "wandb.json"
        try:
            identity = str(json.loads(kept.read_bytes())["id"])
        except (OSError, ValueError, KeyError, TypeError):
            identity = secrets.token_hex(8)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gancore"),
            name=run.folder.absolute().name,
            id=identity,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            settings=wandb.Settings(console="off"),
        )
        write_atomic(kept, json.dumps({"id": identity}).encode())
        # The step is a value like others: wandb's own may only grow, and a resume begins at an earlier one.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Under their own names."""
        self._run.log({"step": step, **values})

    def evaluation(
        self, step: int, values: Mapping[str, float], protocols: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Below ``metrics/``; the protocols in the run's configuration."""
        self._run.log({"step": step, **{f"metrics/{name}": value for name, value in values.items()}})
        self._run.config.update({"protocols": json.loads(json.dumps(protocols))}, allow_val_change=True)

    def picture(self, step: int, name: str, file: Path, caption: str) -> None:
        """As an image with its caption."""
        self._run.log({"step": step, name: self._wandb.Image(str(file), caption=caption or None)})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
