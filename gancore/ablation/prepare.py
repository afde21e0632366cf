"""From a plan to a folder that is ready to be worked on: locked, checked, written down."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gancore.ablation.arms import by_reason
from gancore.ablation.check import Answer, CheckError, check
from gancore.ablation.jobs import AblationFolder, jobs_of, status
from gancore.ablation.plan import Plan, extend, load_plan, save_plan
from gancore.ablation.results import refuse_unmeasured
from gancore.atomic import make_folder, write_atomic
from gancore.errors import ConfigError, DataError, PluginError

CONFLICT = PluginError.exit_code


def prepare(
    folder: AblationFolder,
    plan: Plan,
    stack: contextlib.ExitStack,
    *,
    devices: Sequence[str] = (),
    chosen: Sequence[str] = (),
    skip_conflicts: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Lock the folder, refuse a plan that differs from its own, build every new arm once, and keep the plan.

    Nothing is written before all new arms can be built and the observers can measure.

    Args:
        stack: holds the lock until it is closed. devices: that have to be there. chosen: metrics that will be
            shown.

    Returns:
        The plan with the digest of the data, and without arms that were skipped.

    Raises:
        ConfigError: another ablation, or another process, has the folder; a metric is not measured.
        PluginError: arms that cannot be built. DataError: arms with different data.
    """
    old = None
    if folder.plan.exists():
        stack.enter_context(folder.locked())
        old = load_plan(folder.plan)
        plan = extend(old, plan)
    plan = _checked(folder, plan, old, devices, chosen, skip_conflicts, say)
    if old is None:
        folder.make()
        stack.enter_context(folder.locked())
        if folder.plan.exists():
            raise ConfigError(f"another process has made '{folder.path}' just now: run the same command again")
    if plan.tomls:
        make_folder(folder.path / "configs")
    for arm, text in plan.tomls.items():
        write_atomic(folder.config(arm), text.encode())
    save_plan(folder.plan, plan)
    return plan


def _checked(
    folder: AblationFolder,
    plan: Plan,
    old: Plan | None,
    devices: Sequence[str],
    chosen: Sequence[str],
    skip_conflicts: bool,
    say: Callable[[str], None],
) -> Plan:
    """The plan, after every arm that is new was built, and a measurement that is new was tried.

    The baseline is built again before runs begin on images that may have changed since the last session.
    """
    new_arms = [arm for arm in plan.tomls if old is None or arm not in old.arms]
    measure = plan.tomls and (old is None or old.request != plan.request)
    if old is not None and old.request != plan.request:
        say("the measurement changed: finished runs are measured again")
    wanted = list(dict.fromkeys([*([plan.baseline] if measure else []), *new_arms]))
    if not wanted and _begins_on_files(folder, plan):
        wanted = [plan.baseline]
    if not wanted and not devices:
        return plan
    if wanted:
        tried = f"; {', '.join(plan.observers)} measures an untrained generator once" if measure else ""
        say(f"building {len(wanted)} arm{'' if len(wanted) == 1 else 's'} before anything runs{tried}")
    with tempfile.TemporaryDirectory() as name:
        configs = {}
        for index, arm in enumerate(wanted):
            configs[arm] = Path(name) / f"{index}.toml"
            text = plan.tomls.get(arm) or folder.config(arm).read_text(encoding="utf-8")
            configs[arm].write_text(text, encoding="utf-8")
        answer = check(configs, plan.baseline if measure else "", plan.observers, plan.measuring, devices)
    plan = _without(plan, answer, skip_conflicts)
    if answer.metrics:
        refuse_unmeasured(chosen, answer.metrics)
    return replace(plan, data_digest=_digest(plan, answer))


def _begins_on_files(folder: AblationFolder, plan: Plan) -> bool:
    """Whether runs will begin on a folder or zip of images; built-in sets do not change."""
    on_files = Path(plan.arms[plan.baseline]["data.source"]).is_absolute() and bool(plan.data_digest)
    return (
        on_files
        and folder.config(plan.baseline).exists()
        and any(status(folder, plan, job).state == "waiting" for job in jobs_of(plan))
    )


def _without(plan: Plan, answer: Answer, skip_conflicts: bool) -> Plan:
    """The plan without arms whose plugins turned out to conflict with network or data."""
    left_out = {arm: text for arm, (code, text) in answer.problems.items() if code == CONFLICT and skip_conflicts}
    left_out.pop(plan.baseline, None)
    fatal = {arm: found for arm, found in answer.problems.items() if arm not in left_out}
    if fatal:
        code = next(iter(fatal.values()))[0]
        reasons = by_reason({arm: text for arm, (_, text) in fatal.items()})
        conflicts = all(found[0] == CONFLICT for found in fatal.values()) and plan.baseline not in fatal
        raise CheckError(reasons + (". The other arms run with --skip-conflicts" if conflicts else ""), code)
    return replace(
        plan,
        arms={arm: keys for arm, keys in plan.arms.items() if arm not in left_out},
        tomls={arm: text for arm, text in plan.tomls.items() if arm not in left_out},
        skipped={**plan.skipped, **left_out},
    )


def _digest(plan: Plan, answer: Answer) -> str:
    """The digest of the data of all arms."""
    known = {"the runs before": plan.data_digest} if plan.data_digest else {}
    digests = {**known, **{f"arm '{arm}'": digest for arm, digest in answer.digests.items()}}
    if len(set(digests.values())) > 1:
        shown = ", ".join(f"{who} {digest[:12]}…" for who, digest in digests.items())
        raise DataError(f"arms are compared on the same data, and its digests differ: {shown}")
    return next(iter(digests.values()), "")
