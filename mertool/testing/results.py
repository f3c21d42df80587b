"""What a check gives, and how a list of checks is run."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from mertool.errors import one_line

PASSED, FAILED, WAIVED, NOT_RUN = "passed", "failed", "waived", "not run"


@dataclass(frozen=True)
class Result:
    """What one check of one plugin gave.

    Attributes:
        check: Its name, as in the fact `waivers`.
        status: "passed", "failed", "waived" (it fails, and the plugin says why), "not run"; of the
            check vmap, which judges nothing, "stacked" or "side by side".
        reason: Why it failed, was waived or was not run; "" where it passed.
    """

    check: str
    status: str
    reason: str = ""


class Failed(Exception):  # noqa: N818  (it is a verdict, not an error of the kit)
    """The plugin does not do what the check asks."""


class NotRun(Exception):  # noqa: N818
    """The check cannot be made here, or does not concern this plugin."""


class Found(Exception):  # noqa: N818
    """What a check that judges nothing found out: (status, reason)."""


Check = Callable[[Any], None]


def need(condition: object, message: str) -> None:
    """Fail the check unless the condition holds."""
    if not condition:
        raise Failed(message)


def failed(results: Iterable[Result]) -> list[Result]:
    """The results that failed; a test asserts that there are none."""
    return [result for result in results if result.status == FAILED]


def describe(check: Check) -> str:
    """What a check checks: the first line of its docstring."""
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def checks_of(kind: str) -> dict[str, Check]:
    """The checks of a kind of plugin."""
    return importlib.import_module(f"mertool.testing.{kind}").CHECKS


def run_checks(checks: Mapping[str, Check], subject: Any, facts: Mapping[str, Any]) -> list[Result]:
    """Run every check; the plugin's fact `waivers`, {check: reason}, excuses those that fail.

    Args:
        checks: {name: function of the subject}.
        subject: The plugin with what is needed to try it.
        facts: The plugin's facts.

    Returns:
        One result per check, and one more for each waiver that is none.
    """
    waivers = facts.get("waivers", {})
    results = []
    if not isinstance(waivers, Mapping):
        results.append(Result("waivers", FAILED, "the fact waivers is no {check: reason}"))
        waivers = {}
    for name, check in checks.items():
        result = _run(name, check, subject)
        results.append(_excused(result, waivers[name]) if name in waivers else result)
    results += [
        Result("waivers", FAILED, f'there is no check "{name}" to waive')
        for name in waivers
        if name not in checks
    ]
    return results


def _run(name: str, check: Check, subject: Any) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(subject)
        except Failed as problem:
            return Result(name, FAILED, str(problem))
        except NotRun as problem:
            return Result(name, NOT_RUN, str(problem))
        except Found as finding:
            return Result(name, *finding.args)
        except Exception as error:  # foreign code
            return Result(name, FAILED, shorten(one_line(error), 300))
    return Result(name, PASSED)


def _excused(result: Result, reason: Any) -> Result:
    if not isinstance(reason, str) or not reason.strip():
        return Result(result.check, FAILED, "its waiver gives no reason")
    if result.status == FAILED:
        return Result(result.check, WAIVED, reason)
    if result.status == PASSED:
        return Result(result.check, FAILED, f"waiver not needed, the check passes: {reason}")
    return result
