"""A newcomer's run of docs/plugins.md: seconds of each step, in order, in a folder of its own.

Every command of the page is run, every file it shows is written and every change made, as somebody
would who follows it. Packages are installed into a virtual environment of their own, which sees the
packages of this Python and changes none of them, without a network. Only what the machine does is
timed, not reading and typing.

Target: every command ends as the page says, and prints what the page shows.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
OFFLINE = " --quiet --no-build-isolation --no-deps"  # pip, where nothing can be downloaded


@dataclass
class Step:
    """Something that the page tells to do.

    Attributes:
        what: "command", "write" or "change".
        name: The command, or the file.
        text: Of a file: what is written, or the lines of the change, each with its sign.
        fails: Whether the page says that the command fails.
        shown: Lines that the page says it prints.
    """

    what: str
    name: str
    text: str = ""
    fails: bool = False
    shown: tuple[str, ...] = ()


@dataclass
class Done:
    """A step that was made.

    Attributes:
        step: The command, or the file.
        seconds: Wall time.
        wrong: What is not as the page says; "" = nothing.
    """

    step: str
    seconds: float
    wrong: str = ""


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="clips with one label, instead of the demo's"
    )
    args = parser.parse_args()
    clips = common.folder(args.data, "") if args.data else None
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), clips)
    missed = misses(result)
    return common.finish(args, result, missed, lines(result), key_figure(result))


def steps(page: str) -> list[Step]:
    """What a page tells to do, in order.

    A block `sh` is commands, each ending as a comment `# fails` says; a block `text` is lines that
    the last one prints; a block `python` whose first line is `# FILE` is that file; a block `diff`
    changes one.
    """
    found: list[Step] = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                name, _, comment = (part.strip() for part in f"{line} ".partition("# "))
                if name:
                    found.append(Step("command", name, fails=comment.startswith("fails")))
        elif language == "text":
            found[-1].shown += tuple(text.splitlines())
        elif language == "python":
            head, _, rest = text.partition("\n")
            found.append(Step("write", head.removeprefix("# "), rest))
        elif language == "diff":
            head, _, rest = text.split("\n", 2)
            found.append(Step("change", head.removeprefix("--- "), rest))
    return found


def newcomer(folder: Path) -> dict[str, str]:
    """A virtual environment that has the packages of this Python, with `mertool` and `pip`.

    Returns:
        The environment variables that make it the one in use.
    """
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    seen = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    # addsitedir, so that packages that are installed there as links are found too.
    (site / "seen.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in seen)
    )
    for name in ("mertool", "pip"):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {name} "$@"\n')
        script.chmod(0o755)
    variables = {**os.environ, "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}"}
    variables.pop("MERTOOL_PLUGINS", None)
    return variables


def run(folder: Path, clips: Path | None = None, page: str = "") -> dict[str, Any]:
    """Follow the page in a new folder to its end, or to the first step that goes wrong.

    Args:
        folder: An empty folder.
        clips: Clips that take the place of the demo's.
        page: Its text; "" = docs/plugins.md.
    """
    variables = newcomer(folder / "environment")
    work = folder / "work"
    work.mkdir()
    made: list[Done] = []
    todo = steps(page or PAGE.read_text(encoding="utf-8"))
    for step in todo:
        common.say(f"{step.what}: {step.name}")
        started = time.perf_counter()
        if step.what == "command":
            wrong = command(step, work, variables, clips)
        else:
            wrong = write(step, work)
        made.append(Done(step.name, time.perf_counter() - started, wrong))
        if wrong:
            break
    return {
        "clips": len(list((work / "clips").glob("*.mp4"))),
        "steps": [asdict(done) for done in made],
        "left": len(todo) - len(made),
        "seconds": sum(done.seconds for done in made),
    }


def command(step: Step, work: Path, variables: dict[str, str], clips: Path | None) -> str:
    """Run a command; returns what is wrong."""
    line = step.name
    if clips and line.startswith("cp "):
        line = f"cp -r {shlex.quote(str(clips))} clips"
    if line.startswith("pip install "):
        line += OFFLINE
    done = subprocess.run(
        ["bash", "-c", line], cwd=work, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != int(step.fails):
        told = (done.stderr or done.stdout).strip()
        return f"exit code {done.returncode}, not {int(step.fails)}: {told}"
    printed = {" ".join(line.split()) for line in done.stdout.splitlines()}
    missing = [line for line in step.shown if " ".join(line.split()) not in printed]
    return f"does not print: {missing[0]}" if missing else ""


def write(step: Step, work: Path) -> str:
    """Write or change a file; returns what is wrong."""
    path = work / step.name
    # A newcomer writes into what `plugins new` has made.
    if not path.is_file():
        return "there is no such file to write or change"
    if step.what == "write":
        path.write_text(step.text, encoding="utf-8")
        return ""
    lines = step.text.splitlines(keepends=True)
    before, after = (
        "".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +")
    )
    text = path.read_text(encoding="utf-8")
    if text.count(before) != 1:
        return f"the lines to change are there {text.count(before)} times"
    path.write_text(text.replace(before, after), encoding="utf-8")
    return ""


def misses(result: dict[str, Any]) -> list[str]:
    found = [f"{s['step']}: {s['wrong']}" for s in result["steps"] if s["wrong"]]
    if result["left"]:
        found.append(f"{result['left']} steps not made")
    return found or ([] if result["steps"] else ["the page tells to do nothing"])


def lines(result: dict[str, Any]) -> list[str]:
    return [
        f"{s['seconds']:6.1f} s  {s['step']}{'  WRONG' if s['wrong'] else ''}"
        for s in result["steps"]
    ]


def key_figure(result: dict[str, Any]) -> str:
    right = sum(not s["wrong"] for s in result["steps"])
    return (
        f"{right} of {len(result['steps']) + result['left']} steps of docs/plugins.md as it says, "
        f"with {result['clips']} clips, in {result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    common.main(main)
