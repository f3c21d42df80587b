import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mertool.errors import OutputError
from mertool.files import sha256, to_csv, to_json, whole, write_text


@dataclass
class Report:
    out: Path
    scores: dict = field(default_factory=dict)
    inner: list = field(default_factory=list)


def test_reports_are_json_that_every_reader_takes():
    nan = float("nan")
    report = Report(Path("a/b.h5"), {"r": nan, 3: 1.5}, [Report(Path("c")), (1, nan)])
    read = json.loads(to_json(report), parse_constant=lambda name: pytest.fail(name))
    assert read["out"] == "a/b.h5" and read["scores"] == {"r": None, "3": 1.5}
    assert read["inner"] == [{"out": "c", "scores": {}, "inner": []}, [1, None]]


def test_csv_of_rows_with_different_columns():
    assert to_csv([{"id": "1"}, {"id": "2", "x": 'a,"b'}]) == 'id,x\n1,\n2,"a,""b"\n'
    assert to_csv([]) == "id\n"


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "x", "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_sha256_of_the_empty_file(tmp_path):
    (tmp_path / "x").touch()
    assert sha256(tmp_path / "x").startswith("e3b0c44298fc1c14")


def test_nothing_is_left_where_writing_fails(tmp_path):
    path = tmp_path / "a.bin"
    path.write_text("old")
    with pytest.raises(KeyError), whole(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
