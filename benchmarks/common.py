"""What the benchmark scripts share: arguments, data, running mertool, reporting."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, NoReturn

from mertool.errors import MertoolError
from mertool.files import to_json

SHARED = Path(__file__).resolve().parents[2] / "shared"
LOAD = os.getloadavg()[0]  # before the benchmark adds its own
PACKAGES = (
    "mertool", "numpy", "torch", "transformers", "h5py", "av", "mediapipe", "pocketsphinx", "click"
)  # fmt: skip


class BenchmarkError(Exception):
    """The benchmark cannot be run.

    Args:
        message: What is wrong and what to do.
        code: Exit code: 2 = called wrongly or no data, 1 = what it runs has failed.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Ran:
    """A finished mertool command.

    Attributes:
        report: What its --json printed.
        wall: Wall time in seconds, start of Python included.
        cpu: CPU time of it and of the processes it waited for, seconds.
        peak: Largest resident set of any one of its processes, MB (10^6 bytes).
    """

    report: Any
    wall: float
    cpu: float
    peak: float


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every script has; `doc` is its docstring."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    made.add_argument(
        "--check", action="store_true", help="exit with 1 where a target is missed, saying which"
    )
    return made


def settings_option(made: argparse.ArgumentParser) -> None:
    """--set, for scripts that train."""
    made.add_argument(
        "--set", dest="settings", metavar="SECTION.KEY=VALUE", action="append", default=[],
        help="passed on to mertool train, such as train.epochs=10; may be given several times",
    )  # fmt: skip


def sets_option(made: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """--sets, for scripts that measure on several sets of data."""
    known = list(names)

    def chosen(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return text.split(",")

    made.add_argument(
        "--sets", type=chosen, default=known, metavar="NAME,...",
        help=f"[default: {','.join(known)}]",
    )  # fmt: skip


def folder(given: Path | None, name: str) -> Path:
    """The data folder given with --data, else `name` of the shared data.

    Raises:
        BenchmarkError: It is not there.
    """
    found = given or Path(os.environ.get("MERTOOL_SHARED", SHARED)) / "data" / name
    if not found.is_dir():
        hint = "Check --data." if given else "Give another with --data, or set MERTOOL_SHARED."
        raise BenchmarkError(f"There is no data folder {found}. {hint}")
    return found.resolve()


def source(given: Path | None, name: str) -> Path:
    """The file or folder `name` within the data folder given with --data, else the shared data.

    Raises:
        BenchmarkError: It is not there.
    """
    found = folder(given, "") / name
    if not found.exists():
        raise BenchmarkError(f"There is no {found}. Check --data.")
    return found


def say(message: str) -> None:
    """Tell how far the benchmark is, on stderr."""
    print(message, file=sys.stderr, flush=True)


def command(*args: Any) -> list[str]:
    """The command line of `mertool ARGS --json` in this Python."""
    return [sys.executable, "-m", "mertool", *map(str, args), "--json"]


def mertool(*args: Any) -> Ran:
    """Run `mertool ARGS --json` to its end; that some clips fail (exit code 3) is a result.

    Raises:
        BenchmarkError: The command failed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command(*args), stdout=out, stderr=errors)
        # wait4, for the resources of this command alone.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        report = printed(process.returncode, args[0], out, errors)
    return Ran(report, wall, usage.ru_utime + usage.ru_stime, megabytes(usage))


def megabytes(usage: Any) -> float:
    """Peak resident set of a process, MB (10^6 bytes); macOS counts in bytes, Linux in KiB."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def printed(code: int, name: str, out: IO[bytes], errors: IO[bytes]) -> Any:
    """What the --json of a finished command printed into `out`.

    Raises:
        BenchmarkError: Its exit code says that it failed.
    """
    out.seek(0)
    errors.seek(0)
    if code not in (0, 3):
        told = errors.read().decode(errors="replace").strip()
        raise BenchmarkError(f"mertool {name} failed ({code}):\n{told}", 1)
    return json.loads(out.read())


def seconds(folder: Path) -> float:
    """Time that all epochs of the models below took, whenever they were trained."""
    logs = [path.read_text(encoding="utf-8") for path in folder.rglob("log.jsonl")]
    return sum(json.loads(line)["seconds"] for log in logs for line in log.splitlines())


def environment() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    return {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load_before": round(LOAD, 2),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def finish(
    args: argparse.Namespace,
    result: dict[str, Any],
    missed: Sequence[str],
    lines: Sequence[str],
    key: str,
) -> int:
    """Print the result, the key figure last.

    Args:
        args: The parsed options.
        result: What was measured, for --json.
        missed: A sentence for each target that is missed.
        lines: The same result as text.
        key: The key figure, one line.

    Returns:
        The exit code: 1 where --check is set and a target is missed.
    """
    if args.json:
        name = Path(sys.argv[0]).stem
        head = {"benchmark": name, "environment": environment()}
        print(to_json({**head, **result, "missed": list(missed), "key_figure": key}))
    else:
        print("\n".join([*lines, key]))
    for miss in missed:
        say(f"Target missed: {miss}")
    return 1 if args.check and missed else 0


def main(script: Callable[[], int]) -> NoReturn:
    """Run a script's main function and exit."""
    try:
        code = script()
    except BenchmarkError as stop:
        say(f"Error: {stop}")
        code = stop.code
    except MertoolError as error:
        say(f"Error: {error}")
        code = error.exit_code
    sys.exit(code)
