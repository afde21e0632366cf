"""The fused operations of gancore itself, as ``gan ops`` lists and builds them. No torch here."""

from __future__ import annotations

from gancore.ops.library import OpLibrary

LIBRARY = OpLibrary(
    name="gancore",
    package="gancore.ops",
    cpu=("csrc/core/bias_act.cpp", "csrc/core/upfirdn2d.cpp"),
    cuda=(
        "csrc/core/bias_act.cu",
        "csrc/core/bias_act_cuda.cpp",
        "csrc/core/upfirdn2d.cu",
        "csrc/core/upfirdn2d_cuda.cpp",
    ),
    ops={
        "bias_act": "bias, activation, gain and clamp in one pass; one backwards too, with the sums for the bias",
        "upfirdn2d": "images with zeros inserted, padded, filtered and thinned out, without the zeros",
    },
)
