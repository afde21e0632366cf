"""Building libraries of operations: where files go, what goes wrong, and that nothing is built unasked."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from gancore.cli.main import cli
from gancore.errors import ConfigError, DeviceError, PluginError
from gancore.ops import OpLibrary, runtime, using
from gancore.ops import build as builder
from gancore.ops import library as files
from gancore.ops.build import BuildError, build

COMPILER = """#!/bin/sh
echo run >> "{log}"
{before}
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpLibrary:
    """A library of a package that lies in ``tmp_path``, with a cache of its own."""
    folder = tmp_path / "src" / "fancy_ops"
    (folder / "csrc").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "csrc" / "cpu.cpp").write_text("int one() { return 1; }\n")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("GAN_OPS_DIR", str(tmp_path / "cache"))
    return OpLibrary(name="fancy_ops", package="fancy_ops", ops={"one": "the number one"})


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A compiler that writes its output and keeps count; ``compiler(script)`` makes it do more before that."""
    log = tmp_path / "log"

    def make(before: str = "") -> Path:
        path = tmp_path / "bin" / "c++"
        path.parent.mkdir(exist_ok=True)
        path.write_text(COMPILER.format(log=log, before=before))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))
        return log

    make()
    return make


def test_a_library_is_built_once_into_the_cache(package: OpLibrary, compiler, tmp_path: Path) -> None:
    log = compiler()
    assert not package.built("cpu")
    path = build(package, "cpu")
    assert path.parent == tmp_path / "cache"
    assert path.read_text() == "built\n"
    assert build(package, "cpu") == path
    assert len(log.read_text().split()) == 2  # compiled and linked, once
    build(package, "cpu", force=True)
    assert len(log.read_text().split()) == 4


@pytest.mark.parametrize("change", ["source", "header", "common", "torch"])
def test_a_change_of_anything_that_matters_asks_for_another_file(
    package: OpLibrary, compiler, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = build(package, "cpu")
    if change == "source":
        (package.folder / "csrc" / "cpu.cpp").write_text("int one() { return 2; }\n")
    elif change == "header":
        (package.folder / "csrc" / "new.h").write_text("\n")
    elif change == "common":
        (tmp_path / "common").mkdir()
        monkeypatch.setattr(files, "COMMON", tmp_path / "common")
    else:
        monkeypatch.setattr(files, "_torch_version", lambda: "9.9")
    assert package.path("cpu") != before
    assert not package.built("cpu")


def test_a_compiler_that_fails_is_quoted(package: OpLibrary, compiler, tmp_path: Path) -> None:
    compiler("echo 'cpu.cpp:1: error: no such thing' >&2; exit 3")
    with pytest.raises(
        BuildError, match=r"'fancy_ops': c\+\+ failed with exit code 3:\n.*no such thing\ncommand: "
    ):
        build(package, "cpu")
    assert not list((tmp_path / "cache").glob("*.so"))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_without_a_compiler_it_says_what_to_install(package: OpLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX = 'no-such-compiler' is not on the PATH; install one"):
        build(package, "cpu")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"no g\+\+ or clang\+\+ on the PATH"):
        build(package, "cpu")


def test_without_nvcc_it_says_so(package: OpLibrary, compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(BuildError, match="nvcc is not on the PATH; install the CUDA toolkit"):
        builder.toolchain("cuda")


def test_a_cache_that_cannot_be_written(
    package: OpLibrary, compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAN_OPS_DIR", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="cannot be built in .*set GAN_OPS_DIR to a folder"):
        build(package, "cpu")


def test_two_builds_at_once_make_one_file(package: OpLibrary, compiler) -> None:
    log = compiler("sleep 0.2")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build(package, "cpu"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [package.path("cpu")] * 3
    assert len(log.read_text().split()) == 2


def test_a_missing_package_or_source_is_named(package: OpLibrary) -> None:
    with pytest.raises(PluginError, match="package 'nowhere_ops' is not installed"):
        OpLibrary(name="x", package="nowhere_ops").key("cpu")
    (package.folder / "csrc" / "cpu.cpp").unlink()
    with pytest.raises(PluginError, match=r"source .*cpu.cpp cannot be read .*reinstall 'fancy_ops'"):
        package.key("cpu")


def test_the_mode_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_FUSED", "requires")
    with pytest.raises(ConfigError, match="GAN_FUSED = 'requires' .did you mean 'require'.*auto, off, require"):
        files.mode()
    monkeypatch.setenv("GAN_FUSED", "")
    assert files.mode() == "auto"


def test_what_is_not_built_is_not_used_and_required_is_an_error(package: OpLibrary, compiler) -> None:
    log = compiler()
    with using("auto"), runtime.recording() as asked:
        assert not runtime.usable(package, "cpu")
        assert not runtime.usable(package, "cuda")  # it has no sources for that
    assert list(asked) == ["fancy_ops on cpu"]
    assert "gan ops build" in asked["fancy_ops on cpu"].why
    with using("require"), pytest.raises(DeviceError, match="'fancy_ops' for cpu are not built.*gan ops build"):
        runtime.usable(package, "cpu")
    with using("require"):
        assert not runtime.usable(package, "cuda")
    assert not log.exists()  # asking builds nothing
    runtime.look_again(package, "cpu")


def test_a_damaged_file_is_reported_once_and_not_used(package: OpLibrary, compiler) -> None:
    build(package, "cpu")
    with using("auto"), runtime.recording() as asked:
        assert not runtime.usable(package, "cpu")
        assert "cannot be loaded" in asked["fancy_ops on cpu"].why
        assert not runtime.usable(package, "cpu")
    with using("require"), pytest.raises(DeviceError, match="cannot be loaded .*--force"):
        runtime.usable(package, "cpu")
    runtime.look_again(package, "cpu")


@pytest.fixture
def listed(package: OpLibrary, monkeypatch: pytest.MonkeyPatch) -> OpLibrary:
    from gancore import plugin_manager

    registry = plugin_manager.Registry(libraries={"fancy_ops": package})
    monkeypatch.setattr(plugin_manager, "discover", lambda: registry)
    return package


def test_list_and_build_on_the_command_line(listed: OpLibrary, compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner()
    answer = json.loads(run.invoke(cli, ["ops", "list", "--json"]).output)
    assert answer["libraries"][0]["built"] == {"cpu": "not built", "cuda": "-"}
    done = run.invoke(cli, ["ops", "build"])
    assert done.exit_code == 0, done.output
    assert "fancy_ops for cpu: built in" in done.output
    assert "built already" in run.invoke(cli, ["ops", "build", "--device", "cpu"]).output
    text = run.invoke(cli, ["ops", "list"]).output
    assert "fancy_ops.one: the number one" in text
    compiler("exit 1")
    failed = run.invoke(cli, ["ops", "build", "fancy_ops", "--device", "cpu", "--force"])
    assert failed.exit_code == 1
    assert "fancy_ops for cpu: not built: 'fancy_ops': c++ failed" in failed.output
    wrong = run.invoke(cli, ["ops", "build", "fancy"])
    assert isinstance(wrong.exception, ConfigError)
    assert "did you mean 'fancy_ops'" in str(wrong.exception)


def test_listing_and_building_import_no_torch(tmp_path: Path) -> None:
    script = "import sys, gancore.cli.ops, gancore.ops.build; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"
