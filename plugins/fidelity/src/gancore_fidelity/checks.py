"""What every score asks of its features before it begins."""

from __future__ import annotations

import torch
from torch import Tensor

from gancore.api import DataError

_ROWS = 512


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
    # In blocks, whose extremes are not finite where a number is not: a mask of all would be a quarter of their
    # size.
    bad = [
        start + int(row)
        for start in range(0, len(features), _ROWS)
        for block in [features[start : start + _ROWS]]
        if not torch.isfinite(torch.stack(torch.aminmax(block))).all()
        for row in (~torch.isfinite(block).all(1)).nonzero()
    ]
    if bad:
        raise DataError(
            f"features of {what}: {len(bad)} of {len(features)} rows hold NaN or infinity, the first is row "
            f"{before + bad[0]}; expected finite numbers. Look at the images of these rows, and at the precision "
            "in which the features were computed"
        )


def at_least_float32(features: Tensor) -> Tensor:
    """Half types as float32: in these, sums of squares and cubes overflow or lose all digits."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def check_pair(first: Tensor, second: Tensor, first_what: str, second_what: str) -> None:
    """:func:`check_features` of both, and one D. Raises ValueError and DataError as there."""
    check_features(first, first_what)
    check_features(second, second_what)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_what} have {first.shape[1]} features and {second_what} {second.shape[1]}; "
            "expected the features of one backbone"
        )
