"""The group, usage errors, and how exceptions become messages and exit codes."""

from __future__ import annotations

import errno

import click
import pytest

from gancore import __version__, errors
from gancore.cli import exits
from gancore.cli.main import COMMANDS, cli


def test_version(gan):
    assert gan("--version").out == f"gancore {__version__}\n"


def test_help_texts_of_the_table_belong_to_commands_that_exist():
    context = click.Context(cli)
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert summary[0].isupper()
        assert summary.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no such command 'trian' (did you mean 'train'?)"),
        (["plugins", "lst"], "no such command 'lst' (did you mean 'list'?)"),
        (["train", "--nework", "x"], "'--network'"),
        (["train", "--precision", "bf61"], "bf16"),
        (["train", "--json"], "--json goes with --dry-run"),
        (["sample", "run", "--seeds", "1", "--n", "2"], "leave out --seed and --n"),
    ],
)
def test_usage_errors_exit_2_with_the_nearest_name(gan, arguments, message):
    outcome = gan(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.ConfigError("x"), 2, "error: x\n"),
        (errors.PluginError("x"), 3, "error: x\n"),
        (errors.DataError("x"), 4, "error: x\n"),
        (errors.DivergedError("x"), 5, "error: x\n"),
        (errors.CheckpointError("x"), 6, "error: x\n"),
        (errors.DeviceError("x"), 7, "error: x\n"),
        (errors.RunFolderError("x"), 8, "error: x\n"),
        (errors.Preempted("terminated, saved"), 75, "terminated, saved\n"),
        (errors.Interrupted("interrupted, saved"), 130, "interrupted, saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (MemoryError(), 7, "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7, "error: out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 8, "error: cannot write f: No space left"),
        (ZeroDivisionError("x"), 1, "error: unexpected ZeroDivisionError: x\nThis is a bug"),
    ],
)
def test_exit_codes(capsys, error, code, message):
    assert exits.report(error) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_out_of_memory_of_the_device():
    torch = pytest.importorskip("torch")
    assert exits.report(torch.OutOfMemoryError("CUDA out of memory.\nmore")) == 7


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_traceback_only_when_asked_for(gan, monkeypatch, how):
    monkeypatch.delenv("GAN_DEBUG", raising=False)
    assert "Traceback" not in gan("train", "nowhere.toml").err
    if how == "variable":
        monkeypatch.setenv("GAN_DEBUG", "1")
        outcome = gan("train", "nowhere.toml")
    else:
        outcome = gan("--debug", "train", "nowhere.toml")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert "error: cannot read the configuration" in outcome.err


def test_no_command_shows_the_help(gan):
    outcome = gan()
    assert outcome.code == 2
    assert "Commands:" in outcome.out + outcome.err
