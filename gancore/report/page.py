"""Pages: templates of this package, rendered into one HTML text that loads nothing from anywhere."""

from __future__ import annotations

import functools
import importlib
import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancore import __version__
from gancore.errors import ConfigError
from gancore.text import duration

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "\N{EN DASH}"
"""What stands for a value that is not there."""


def require_extra() -> None:
    """Find out, before long work, that reports can be made.

    Raises:
        ConfigError: matplotlib or jinja2 is not installed.
    """
    for name in ("jinja2", "matplotlib"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ConfigError(
                f"a report needs matplotlib and jinja2, and '{name}' is not installed; "
                "install both with: pip install 'gancore[report]'"
            ) from None


def render(template: str, **context: Any) -> str:
    """A template of ``templates/`` as HTML. Every value is escaped, unless it is ``markupsafe.Markup``.

    Args:
        template: a file name, such as ``"report.html"``.
        context: what the template names.

    Raises:
        ConfigError: the extra is not installed.
    """
    require_extra()
    return _environment().get_template(template).render(version=__version__, **context)


def number(value: object) -> str:
    """A value for people: ``"12,000"``, ``"0.0123"``, ``"1.2e-07"``, ``"yes"``; a dash for None and NaN."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{Decimal(value):.4g}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return MISSING
    if value.is_integer() and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["duration"] = duration
    return environment
