"""The contract: what every method keeps, whoever wrote it, each rule by name.

``pytest --gan-plugin NAME`` runs the rules against an installed plugin; a plugin's own tests call :func:`check`::

    @pytest.mark.parametrize("rule", RULES)
    def test_contract(rule):
        check(rule, Subject("featuremix", options={"featuremix.alpha": 0.5}))
"""

from __future__ import annotations

import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping

from gancore.errors import GancoreError, nearest
from gancore.testing.bench import Bench
from gancore.testing.rules import numbers, options, package, runs, steps
from gancore.testing.subject import Breach, Subject, UnfitSubject

__all__ = ["RULES", "ContractViolation", "Subject", "UnfitSubject", "check"]

Rule = Callable[[Bench], "str | None"]

RULES: Mapping[str, Rule] = {
    "entry-point": package.entry_point,
    "options-round-trip": options.options_round_trip,
    "declared-is-read": steps.declared_is_read,
    "finite": numbers.finite,
    "gradients-stay": steps.gradients_stay,
    "state": runs.state,
    "concat-is-sequential": numbers.concat_is_sequential,
    "weight-zero": runs.weight_zero,
    "own-random-stream": runs.own_random_stream,
    "no-global-random": runs.no_global_random,
    "double-backward": numbers.double_backward,
    "bf16": numbers.bf16,
    "order": runs.order,
    "card": package.card,
    "no-host-sync": steps.no_host_sync,
    "pure-functions-stay": steps.pure_functions_stay,
}
"""Name -> function of a prepared subject. Its docstring is the rule; it returns why the rule does not apply."""


class ContractViolation(AssertionError):
    """A plugin breaks a rule.

    Attributes:
        rule: its name. subject: who was tested, and how.
        found, expected, fix: what the message is made of.
    """

    def __init__(self, rule: str, subject: Subject, found: str, expected: str, fix: str) -> None:
        self.rule = rule
        self.subject = subject
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(
            f"plugin '{subject.name}' breaks the rule '{rule}'{subject.circumstances()}\n"
            f"  found:    {found}\n"
            f"  expected: {expected}\n"
            f"  to fix:   {fix}"
        )


def sentence(rule: str) -> str:
    """The rule in a sentence."""
    text = (RULES[rule].__doc__ or "").strip().split("\n\n")[0]
    return " ".join(text.split())


def check(rule: str, subject: Subject) -> str | None:
    """Check one rule; what several rules need is computed once and kept for the subjects used last.

    Args:
        rule: a name in :data:`RULES`.
        subject: the method, its options, and what it runs with.

    Returns:
        None when the rule holds, or why it has nothing to check for this method.

    Raises:
        ContractViolation: the rule is broken.
        UnfitSubject: the subject cannot be run here at all: it needs a companion or a network that nobody named.
        KeyError: there is no such rule.
    """
    if rule not in RULES:
        raise KeyError(f"unknown rule '{rule}'{nearest(rule, RULES)}; rules: {', '.join(RULES)}")
    try:
        return RULES[rule](_bench(subject))
    except Breach as breach:
        raise ContractViolation(rule, subject, breach.found, breach.expected, breach.fix) from breach.__cause__
    except UnfitSubject:
        raise
    except GancoreError as error:
        raise ContractViolation(
            rule,
            subject,
            f"{type(error).__name__}: {error}",
            f"a run with it, in which this is checked: {sentence(rule)}",
            "what the message says; it is what a user of the method would see",
        ) from error
    except Exception as error:  # of the plugin, in what the rule calls itself
        raise ContractViolation(
            rule,
            subject,
            f"{type(error).__name__}: {error} ({_innermost(error)})",
            sentence(rule),
            "the line that raises",
        ) from error


def _innermost(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown line"


_MOST = 8
_benches: OrderedDict[object, Bench] = OrderedDict()


def _bench(subject: Subject) -> Bench:
    key = (subject.key(), tuple(sys.path))
    if key not in _benches:
        _benches[key] = Bench(subject)
        while len(_benches) > _MOST:
            _benches.popitem(last=False)
    _benches.move_to_end(key)
    return _benches[key]
