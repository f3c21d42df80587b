"""How long `mertool --help` takes, and which heavy packages it imports.

Wall times are medians over runs that alternate with bare Python and with Python that imports
click, so that all three see the same noise.

Target: none of torch, transformers, h5py and matplotlib is imported, and it takes under 0.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import common

RUNS = 10
MOST = 0.5  # seconds
FORBIDDEN = ("torch", "transformers", "h5py", "matplotlib")
HEAVY = (*FORBIDDEN, "av", "mediapipe", "pocketsphinx", "soundfile", "scipy", "sklearn", "numpy")
COMMANDS = {
    "python": ["-c", "pass"],
    "click": ["-c", "import click"],
    "mertool --help": ["-m", "mertool", "--help"],
}


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", help="not used: this benchmark needs no data")
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, options in COMMANDS.items():
            times[name].append(run(options))
    result: dict[str, Any] = {
        "runs": RUNS,
        "median": {name: statistics.median(values) for name, values in times.items()},
        "least": {name: min(values) for name, values in times.items()},
        "heavy": imported(COMMANDS["mertool --help"]),
    }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def run(options: list[str]) -> float:
    """Wall time of one start of Python, seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *options], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise common.BenchmarkError(f"python {' '.join(options)} failed:\n{done.stderr.strip()}", 1)
    return wall


def imported(options: list[str]) -> list[str]:
    """The heavy packages that Python imports when started with these options."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *options], capture_output=True, text=True, check=True
    )
    # Lines such as "import time:  1200 |  3400 |   numpy.linalg".
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in HEAVY if name in names]


def misses(result: dict[str, Any]) -> list[str]:
    found = [f"mertool --help imports {name}" for name in result["heavy"] if name in FORBIDDEN]
    if result["median"]["mertool --help"] >= MOST:
        found.append(
            f"mertool --help takes {result['median']['mertool --help']:.2f} s, not under {MOST} s"
        )
    return found


def lines(result: dict[str, Any]) -> list[str]:
    bare = result["median"]["python"]
    return [
        *(
            f"{name}: {median:.3f} s, {median / bare:.1f} times bare Python"
            for name, median in result["median"].items()
        ),
        f"heavy packages imported: {', '.join(result['heavy']) or 'none'}",
    ]


def key_figure(result: dict[str, Any]) -> str:
    wall, click = result["median"]["mertool --help"], result["median"]["click"]
    return f"mertool --help takes {wall:.3f} s, {wall / click:.2f} times importing click"


if __name__ == "__main__":
    common.main(main)
