"""What every score asks of its features before it begins."""

from __future__ import annotations

import torch
from torch import Tensor

from gancore.api import DataError

_ROWS = 4096


def check_features(features: Tensor, what: str, before: int = 0) -> None:
    """Features are (N, D), of a floating type, and finite.

    Args:
        what: whose features these are, for the message: "the generated samples".
        before: how many rows came in earlier parts; rows are counted from there.

    Raises:
        ValueError: another shape or type. DataError: NaN or infinity, with how many rows and the first of them.
    """
    if features.dim() != 2 or not features.shape[1] or not features.is_floating_point():
        raise ValueError(
            f"features of {what} are {tuple(features.shape)} {features.dtype}; expected (N, D) of a floating type"
        )
    # In blocks: a mask of all features would be a quarter of their size.
    bad = [
        start + int(row)
        for start in range(0, len(features), _ROWS)
        for row in (~torch.isfinite(features[start : start + _ROWS]).all(1)).nonzero()
    ]
    if bad:
        raise DataError(
            f"features of {what}: {len(bad)} of {len(features)} rows hold NaN or infinity, the first is row "
            f"{before + bad[0]}; expected finite numbers. Look at the images of these rows, and at the precision "
            "in which the features were computed"
        )


def check_pair(first: Tensor, second: Tensor, first_what: str, second_what: str) -> None:
    """:func:`check_features` of both, and one D. Raises ValueError and DataError as there."""
    check_features(first, first_what)
    check_features(second, second_what)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_what} have {first.shape[1]} features and {second_what} {second.shape[1]}; "
            "expected the features of one backbone"
        )
