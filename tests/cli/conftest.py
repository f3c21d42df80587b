"""The command line, called in this process, with the toy extractors installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cli.toys import OPTIONS, environment, install, make_clips, use

from mertool.cli import main


class Done(NamedTuple):
    """What a command gave: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """`call(*args)` runs `mertool ARGS` in an empty folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # The width of a terminal decides where help lines are cut.
    monkeypatch.setenv("COLUMNS", "80")
    with use(tmp_path / "installed", monkeypatch):

        def run(*args: object) -> Done:
            argv = [str(a) for a in args]
            monkeypatch.setattr("sys.argv", ["mertool", *argv])
            capsys.readouterr()
            with pytest.raises(SystemExit) as caught:
                main(argv)
            assert isinstance(caught.value.code, int)
            return Done(caught.value.code, *capsys.readouterr())

        yield run


@pytest.fixture
def extract(call: Callable[..., Done]) -> Callable[..., Done]:
    """`extract(*args)` runs `mertool extract ARGS` with the toy extractors."""
    return lambda *args: call("extract", *args, *OPTIONS)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Six short clips."""
    return make_clips(tmp_path / "clips", ["one", "two words", "", "four", "the fifth", "six"])


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toys, installed for other processes."""
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def env(plugin: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the toys installed."""
    return environment(plugin, tmp_path / "seen.txt")
