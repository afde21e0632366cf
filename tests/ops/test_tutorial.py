"""The operation that ``docs/ops.md`` builds up works as it stands there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from gancore.ops import using
from gancore.testing import build_ops

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ops.md"
BLOCK = re.compile(r"^   ```(?:python|cpp)\n(.*?)^   ```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_operation_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gancore_scale" / "csrc").mkdir(parents=True)
    (tmp_path / "gancore_scale" / "__init__.py").write_text("")
    for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        code = re.sub(r"^   ", "", found[1], flags=re.MULTILINE)
        name = re.match(r"(?:#|//) (\S+)", code)
        assert name is not None
        (tmp_path / name[1]).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GAN_OPS_DIR", str(tmp_path / "cache"))
    functional = importlib.import_module("gancore_scale.functional")
    build_ops(functional.LIBRARY)
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    with using("require"):
        out = functional.scale(images, 2.5)
    assert out.grad_fn is not None
    torch.testing.assert_close(out, images * 2.5)
    (gradient,) = torch.autograd.grad(out.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, 2.5))
    arguments = (images.detach().requires_grad_(), 2.5)
    torch.library.opcheck(functional.fused.times, arguments, test_utils=("test_schema", "test_faketensor"))
