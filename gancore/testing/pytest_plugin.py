"""``pytest --gan-plugin NAME``: every rule of the contract as a test of its own, in any folder.

pytest loads this module wherever gancore is installed. It imports the rest of gancore, and torch, only when the
option is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gancore.plugin_manager import Registry
    from gancore.testing.subject import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    """The three options."""
    group = parser.getgroup("gancore", "contract of gancore's plugins")
    group.addoption(
        "--gan-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="Run every rule of the contract against an installed plugin: a method, or the distribution or entry "
        "point that brings several. Repeatable. Without files on the command line nothing else is collected.",
    )
    group.addoption(
        "--gan-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="An option of the run, as gan train takes it with -o. Repeatable.",
    )
    group.addoption(
        "--gan-with",
        action="append",
        default=[],
        metavar="NAME",
        help="A method that runs beside the tested one; hinge when none is named. Repeatable.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse unknown names before anything is collected; leave other tests alone when no file was named."""
    config = session.config
    if not config.option.gan_plugin:
        unused = [flag for flag in ("set", "with") if getattr(config.option, f"gan_{flag}")]
        if unused:
            raise pytest.UsageError(f"--gan-{unused[0]} says how a plugin is tested: name one with --gan-plugin")
        return
    config.stash[_SUBJECTS] = _subjects(config)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the rules before the tests of the named files."""
    rules: list[pytest.Item] = []
    for subject, only in config.stash.get(_SUBJECTS, []):
        collector = _Contract.from_parent(session, name=subject.name, nodeid=subject.name)
        collector.subject, collector.only = subject, only
        rules += session.genitems(collector)
    items[:0] = rules


_SUBJECTS = pytest.StashKey[list[tuple["Subject", "tuple[str, ...]"]]]()


class _Contract(pytest.Collector):
    """The rules for one method."""

    subject: Subject
    only: tuple[str, ...]

    def collect(self) -> Iterator[pytest.Item]:
        from gancore.testing.contract import RULES

        for rule in self.only or RULES:
            item = _Rule.from_parent(self, name=rule)
            item.subject = self.subject
            yield item


class _Rule(pytest.Item):
    """One rule for one method."""

    subject: Subject

    def runtest(self) -> None:
        from gancore.testing.contract import check

        does_not_apply = check(self.name, self.subject)
        if does_not_apply:
            pytest.skip(does_not_apply)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was found, without the way there."""
        from gancore.errors import GancoreError
        from gancore.testing.contract import ContractViolation

        if isinstance(excinfo.value, ContractViolation | GancoreError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """The heading of a failure."""
        return self.path, None, f"{self.subject.name}: {self.name}"


def _subjects(config: pytest.Config) -> list[tuple[Subject, tuple[str, ...]]]:
    """The methods to test, each with the rules that can be asked; none for all."""
    from gancore.config import parse_override
    from gancore.errors import GancoreError
    from gancore.plugin_manager import discover
    from gancore.testing.subject import Subject

    registry = discover()
    try:
        options = dict(parse_override(text) for text in config.option.gan_set)
        for name in config.option.gan_with:
            registry.method(name)
        found: dict[str, tuple[str, ...]] = {}
        for name in config.option.gan_plugin:
            found |= _methods(registry, name)
    except GancoreError as error:
        raise pytest.UsageError(str(error)) from None
    companions = tuple(config.option.gan_with) or ("hinge",)
    subjects = []
    for name, only in found.items():
        others = {other for other in found if other != name and other not in companions}
        own = {k: v for k, v in options.items() if k.removeprefix("methods.").split(".")[0] not in others}
        if own and not only:
            _check_options(registry, name, companions, own)
        subjects.append((Subject(name, own, companions), only))
    return subjects


def _check_options(registry: Registry, name: str, companions: tuple[str, ...], own: dict[str, Any]) -> None:
    """A wrong --gan-set is the caller's mistake, not a breach of the plugin's."""
    from gancore.config import resolve
    from gancore.errors import ConfigError, PluginError

    try:
        resolve(registry, [("--gan-set", {"plugins": [name, *companions], **own})])
    except ConfigError as error:
        raise pytest.UsageError(f"--gan-set: {error}") from None
    except PluginError:
        return  # the default companion steps back; one that was named is reported by the rules


def _methods(registry: Registry, name: str) -> dict[str, tuple[str, ...]]:
    """The methods behind a name. One that is broken can only be asked for its entry point."""
    from importlib.metadata import entry_points

    from gancore.errors import PluginError, nearest
    from gancore.plugin_manager import ENTRY_POINT_GROUP, discover

    if name in registry.methods:
        return {name: ()}
    if name in registry.broken:
        return {name: ("entry-point",)}
    if name in registry.networks:
        raise PluginError(f"'{name}' is a network, and the contract is one of methods")
    points = list(entry_points(group=ENTRY_POINT_GROUP))
    wanted = {_plain(name), _plain(f"gancore-{name}")}
    chosen = [p for p in points if p.name == name or (p.dist is not None and _plain(p.dist.name) in wanted)]
    if chosen:
        alone = discover(chosen)
        found: dict[str, tuple[str, ...]] = {broken: ("entry-point",) for broken in alone.broken}
        found |= {
            method: () for method in sorted(alone.methods) if alone.origins[method].distribution != "gancore"
        }
        if found:
            return found
        raise PluginError(f"'{name}' registers no method: register_methods(register) hands over each MethodSpec")
    known = [*registry.methods, *registry.broken, *(p.name for p in points)]
    known += [point.dist.name for point in points if point.dist is not None]
    raise PluginError(
        f"unknown plugin '{name}'{nearest(name, dict.fromkeys(known))}; to see what is installed: "
        f"gan plugins list; to install it: pip install gancore-{name}"
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
