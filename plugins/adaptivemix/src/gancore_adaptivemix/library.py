"""The fused operations of this package, as ``gan ops`` lists and builds them. No torch here."""

from __future__ import annotations

from gancore.ops import OpLibrary

LIBRARY = OpLibrary(
    name="gancore_adaptivemix",
    package="gancore_adaptivemix",
    cuda=("csrc/cuda.cu", "csrc/bind_cuda.cpp"),
    ops={
        "mix": "rows of a batch mixed with other rows, or the transpose, in one pass",
        "distances": "rows against mixed rows, which are never stored, in one pass; one backwards",
    },
)
