from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass

import pytest

from gancore.errors import ConfigError, PluginError
from gancore.networks.builtin import BUILTIN
from gancore.networks.spec import NetworkSpec
from gancore.options import describe_options, resolve_options

SPECS = {spec.name: spec for spec in BUILTIN}


@dataclass(frozen=True)
class NoOptions:
    pass


def test_specifications_import_no_torch() -> None:
    code = (
        "import sys, gancore.networks.spec, gancore.networks.options, gancore.networks.builtin\n"
        "print(sorted(name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", BUILTIN, ids=lambda spec: spec.name)
def test_options_are_described_and_frozen(spec: NetworkSpec) -> None:
    assert is_dataclass(spec.options)
    assert spec.options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(row["help"] for row in describe_options(spec.options))
    options, origins = resolve_options(spec.options, {"latent_dim": 5}, where=f"{spec.name}.")
    assert options.latent_dim == 5
    assert origins["latent_dim"] == "given"
    assert {field.name for field in fields(spec.options)} == set(origins)


@pytest.mark.parametrize("spec", BUILTIN, ids=lambda spec: spec.name)
def test_defaults_name_the_configuration(spec: NetworkSpec) -> None:
    assert set(spec.defaults) == {
        "optimizer.g.lr",
        "optimizer.g.betas",
        "optimizer.d.lr",
        "optimizer.d.betas",
        "n_critic",
    }


def test_unknown_value_of_an_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dcgan\.d_norm = 'layer'"):
        resolve_options(SPECS["dcgan"].options, {"d_norm": "layer"}, where="dcgan.")


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_allowed_images(size: int) -> None:
    SPECS["dcgan"].check((3, size, size))
    SPECS["sngan"].check((1, size, size), "digits")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "dcgan",
            (2,),
            "network 'dcgan' generates images; the set 'toy' holds 2-D points: use --network mlp",
        ),
        (
            "mlp",
            (3, 32, 32),
            "network 'mlp' generates points; the set 'toy' holds images: use --network dcgan",
        ),
        (
            "sngan",
            (3, 48, 48),
            "network 'sngan' cannot generate 48x48 images (the set 'toy'); sizes: 16, 32, 64, 128",
        ),
        (
            "dcgan",
            (3, 32, 64),
            "network 'dcgan' generates square images; the set 'toy' holds 32x64: "
            "crop or pad it to one of the sizes 16, 32, 64, 128",
        ),
        (
            "dcgan",
            (32, 32),
            "network 'dcgan' generates images; the set 'toy' holds samples of shape (32, 32): "
            "expected (channels, height, width)",
        ),
    ],
)
def test_wrong_data_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SPECS[name].check(shape, "toy")
    assert str(error.value) == message


def test_check_without_a_name_of_the_data() -> None:
    with pytest.raises(ConfigError, match="the data set holds 2-D points"):
        SPECS["sngan"].check((2,))


def test_build_must_name_a_function() -> None:
    with pytest.raises(PluginError, match="expected 'module:function'"):
        NetworkSpec(name="n", summary="", build="module", options=NoOptions, kind="image")


def test_kind_must_be_known() -> None:
    with pytest.raises(PluginError, match="expected 'image' or 'points'"):
        NetworkSpec(name="n", summary="", build="m:f", options=NoOptions, kind="sound")  # type: ignore[arg-type]


@pytest.mark.parametrize("build", ["gancore.networks.absent:build", "gancore.networks.spec:absent"])
def test_a_missing_function_is_a_plugin_error(build: str) -> None:
    spec = NetworkSpec(name="n", summary="", build=build, options=NoOptions, kind="image")
    with pytest.raises(PluginError, match="network 'n': cannot load"):
        spec.load()
