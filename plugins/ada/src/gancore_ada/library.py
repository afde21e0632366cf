"""The fused operations of this package, as ``gan ops`` lists and builds them. No torch here."""

from __future__ import annotations

from gancore.ops import OpLibrary

LIBRARY = OpLibrary(
    name="gancore_ada",
    package="gancore_ada",
    cpu=("csrc/warp.cpp", "csrc/compose.cpp"),
    cuda=("csrc/cuda.cu", "csrc/bind_cuda.cpp"),
    ops={
        "warp": "geometry, colour and cutout of a batch, or their transpose",
        "compose": "the parameters and matrices of a batch from its random numbers",
    },
)
