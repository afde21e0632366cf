"""Discovery: one by one, broken ones listed, names unique."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import pytest

from gancore.api import MethodSpec, NetworkSpec, Options, hookimpl
from gancore.errors import PluginError
from gancore.plugin_manager import discover


def entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str):
    (tmp_path / f"plugin_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.metadata.EntryPoint(name, f"plugin_{name}", "gancore.plugins")


GOOD = """
from gancore.api import MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name={name!r}, summary="Good.", target="nowhere:Nothing"))
"""


def test_installed_plugins_are_found() -> None:
    registry = discover()
    assert "adaptivemix" in registry.methods
    assert registry.origins["adaptivemix"].distribution == "gancore-adaptivemix"
    assert registry.origins["hinge"].distribution == "gancore"
    assert {"dcgan", "sngan", "mlp"} <= set(registry.networks)
    assert registry.broken == {}


def test_a_broken_plugin_is_listed_and_hides_no_other(tmp_path, monkeypatch) -> None:
    found = discover(
        [
            entry_point(tmp_path, monkeypatch, "apple", GOOD.format(name="apple")),
            entry_point(tmp_path, monkeypatch, "bad", "import no_such_module"),
            entry_point(
                tmp_path, monkeypatch, "half", GOOD.format(name="half") + "\nraise ValueError('half-way')"
            ),
            entry_point(tmp_path, monkeypatch, "twice", GOOD.format(name="hinge")),
            entry_point(tmp_path, monkeypatch, "typo", GOOD.format(name="typo").replace("_methods", "_metods")),
            entry_point(tmp_path, monkeypatch, "zebra", GOOD.format(name="zebra")),
        ]
    )
    assert {"apple", "zebra"} <= set(found.methods)
    assert set(found.broken) == {"bad", "half", "twice", "typo"}
    assert found.broken["bad"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "'hinge' is registered by both 'gancore' and 'twice'; uninstall one" in found.broken["twice"]
    assert "register_metods" in found.broken["typo"]
    assert "half" not in found.methods
    with pytest.raises(PluginError, match="plugin 'bad' is installed but broken: ModuleNotFoundError"):
        found.method("bad")


def test_names_are_plain() -> None:
    plugin = types.SimpleNamespace(
        register_methods=hookimpl(
            lambda register: register(MethodSpec(name="Bad Name", summary="", target="a:B"))
        )
    )
    from gancore.plugin_manager import Origin

    with pytest.raises(PluginError, match="registers the name 'Bad Name'; expected lower-case"):
        discover([]).register(plugin, Origin("test", "0"))


def test_a_plugin_can_bring_networks() -> None:
    from gancore.plugin_manager import Origin

    spec = NetworkSpec(name="tiny", summary="", build="a:b", options=Options, kind="image", sizes=(16,))
    plugin = types.SimpleNamespace(register_networks=hookimpl(lambda register: register(spec)))
    registry = discover([])
    registry.register(plugin, Origin("test", "0"))
    assert registry.network("tiny") is spec


def test_discovery_imports_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from gancore.plugin_manager import discover; r = discover(); "
        "assert 'adaptivemix' in r.methods; "
        "r.method('adaptivemix').claims(r.method('adaptivemix').options()); "
        "print(sorted({'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
