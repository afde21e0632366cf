"""The fused operations of this package, as ``gan ops`` lists and builds them. No torch here."""

from __future__ import annotations

from gancore.ops import OpLibrary

LIBRARY = OpLibrary(
    name="gancore_diffaugment",
    package="gancore_diffaugment",
    cuda=("csrc/cuda.cu", "csrc/bind_cuda.cpp"),
    ops={"affine": "DiffAugment of a batch, or its transpose: one pass, and one for the mean of each image"},
)
