"""The fixed sections of a configuration, as option dataclasses. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gancore.data.options import DataOptions as DataOptions
from gancore.options import option


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Section ``train``: the length, size and seed of a run."""

    steps: int = option(2000, help="Steps of the run; a step is one update of G.", minimum=1)
    batch: int = option(64, help="Images a batch.", minimum=1)
    n_critic: int = option(1, help="Updates of D a step.", minimum=1)
    seed: int = option(0, help="Seed of every random draw.", minimum=0)
    lazy: Literal["merge", "separate"] = option(
        "merge", help="Due lazy terms join the main phase, or get a phase and optimiser step of their own."
    )
    spectral_norm: Literal["per_phase", "per_view"] = option(
        "per_phase", help="One power iteration a phase, or one a view (views then run one by one)."
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Section ``compute``: where and how it is computed."""

    device: str = option("auto", help="auto, cpu, cuda or cuda:N.")
    precision: Literal["auto", "float32", "bf16", "float64"] = option(
        "auto",
        help="bf16 is autocast with float32 losses; float64 is for checks; auto is bf16 for images where the "
        "machine has units for it, else float32.",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = option(
        "auto", help="Layout of convolution weights, activations follow; auto is channels_last for images."
    )
    deterministic: bool = option(
        True, help="Deterministic cuDNN kernels on a GPU, without which a resumed run is not bit-equal."
    )
    threads: int = option(0, help="CPU threads; 0 leaves the choice to torch.", minimum=0, maximum=1024)
    graphs: bool = option(
        True, help="On a GPU, record each phase of a step and replay it; what cannot be recorded runs eagerly."
    )
    compile: bool = option(
        False, help="Compile the forwards of G and D with torch.compile, where nothing is differentiated twice."
    )
    execution: Literal["concat", "sequential"] = option(
        "concat", help="Views of a group in one forward pass, or one by one; same result."
    )
    micro_batch_d: int = option(
        0, help="Most rows of D that keep activations at once; 0 for no limit.", minimum=0
    )
    micro_batch_g: int = option(
        0, help="Most rows of G that keep activations at once; 0 for no limit.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Sections ``optimizer.g`` and ``optimizer.d``."""

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = option("adam", help="The algorithm.")
    lr: float = option(2e-4, help="Learning rate.", above=0)
    betas: tuple[float, float] = option((0.5, 0.999), help="Adam's decay rates.", minimum=0, below=1)
    momentum: float = option(0.0, help="Momentum of rmsprop and sgd.", minimum=0, below=1)
    eps: float = option(1e-8, help="Added to the denominator by adam and rmsprop.", above=0)
    weight_decay: float = option(0.0, help="Weight decay.", minimum=0)
    clip_norm: float = option(0.0, help="Largest norm of the whole gradient; 0 for no clipping.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class EmaOptions:
    """Section ``ema``: the averaged generator that samples come from."""

    half_life_kimg: float = option(10.0, help="Half-life of the average, in thousand images.", minimum=0)
    ramp: float = option(
        0.05, help="The half-life is at most this share of the images seen; 0 for no ramp.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Section ``output``: what is written, and how often. None of it changes the training."""

    log_every: int = option(50, help="Steps a line of metrics.jsonl.", minimum=1)
    snap: int = option(500, help="Steps between checkpoints and sample grids.", minimum=1)
    keep: int = option(3, help="Checkpoints to keep.", minimum=2)
    keep_best: str = option(
        "", help="Metric whose best value marks a checkpoint to keep too; needs evaluate_every."
    )
    grid: int = option(64, help="Images in a sample grid.", minimum=1, maximum=1024)
    evaluate_every: int = option(
        0, help="Steps between evaluations, the first before training, one at the end; 0 for none.", minimum=0
    )
    sinks: tuple[str, ...] = option(
        (),
        help='Where metrics and pictures go too, such as ["tensorboard", "wandb"]; gan plugins list shows all.',
    )
    max_hours: float = option(0.0, help="Save and stop after so many hours; 0 for no limit.", minimum=0)


SECTIONS: dict[str, type] = {
    "train": TrainOptions,
    "data": DataOptions,
    "compute": ComputeOptions,
    "optimizer.g": OptimizerOptions,
    "optimizer.d": OptimizerOptions,
    "ema": EmaOptions,
    "output": OutputOptions,
}
"""The fixed sections. ``network`` and one section a method are added by name."""

FREE_KEYS = (
    "train.steps",
    "output.",
    "compute.threads",
    "compute.device",
    "data.source",
    "data.root",
    "data.download",
    "data.memory_gib",
    "data.bad_files",
    "data.held_out",
)
"""Keys that may change on resume: the length of the run, what is written, and where things are. The digest of
the data and the record of the environment stand for the latter."""


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "data.source": "digits",
        "network.name": "dcgan",
        "network.g_width": 32,
        "network.d_width": 32,
        "train.batch": 64,
        "train.steps": 2500,
        "data.conditional": True,
        "optimizer.d.lr": 1e-3,
        "optimizer.g.lr": 5e-4,
        "output.grid": 80,
    },
}
"""Named bundles of configuration for ``--preset``; anything given wins over them."""
