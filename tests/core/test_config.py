from dataclasses import dataclass

import pytest

from mertool.config import read_toml, resolve, settings_of, to_dict, to_toml
from mertool.errors import DataError, PluginError, UsageError


@dataclass(frozen=True)
class Toy:
    lr: float = 1e-3
    layers: int = 3
    name: str = "x"
    on: bool = True
    targets: tuple[str, ...] = ("text",)
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.layers < 1:
            raise ValueError("layers must be at least 1")


def build(*settings, base=None):
    return resolve({"toy": Toy}, settings, base)["toy"]


def test_defaults_and_every_type():
    assert build() == Toy()
    made = build(
        "toy.lr=3e-4", "toy.layers=4", "toy.name=a b", "toy.on=false",
        "toy.targets=text,audio", "toy.sizes=[3, 4]",
    )  # fmt: skip
    assert made == Toy(3e-4, 4, "a b", False, ("text", "audio"), (3, 4))
    assert build("toy.sizes=3,4").sizes == (3, 4) and build("toy.sizes=5").sizes == (5,)
    assert build("toy.targets=true, 1").targets == ("true", "1")
    assert build("toy.lr=1").lr == 1.0 and isinstance(build("toy.lr=1").lr, float)
    assert build("toy.name=12").name == "12"
    assert build("toy.targets=audio").targets == ("audio",)


def test_command_line_wins_over_file():
    assert build("toy.layers=9", base={"toy": {"layers": 2, "lr": 0.5}}) == Toy(0.5, 9)


def test_every_error_at_once():
    with pytest.raises(UsageError) as caught:
        build(
            "toy.lr=fast", "toy.layer=2", "toys.lr=1", "nonsense", "toy.on=1", "toy.sizes=a,b",
            base={"other": {}, "toy": {"name": 3}},
        )  # fmt: skip
    where = caught.value.where
    for part in (
        "toy.lr: 'fast' is not a number",
        'toy.layer: no such setting. Did you mean "layers"?',
        'toys.lr: no such section. Did you mean "toy"?',
        '"nonsense": settings are written section.key=value',
        "toy.on: 1 is not true or false",
        "toy.sizes: 'a' is not a whole number",
        "[other]: no such section",
        "toy.name: 3 is not a text",
    ):
        assert part in where
    assert "8 settings are wrong" in caught.value.what


def test_values_checked_by_the_section_itself():
    with pytest.raises(UsageError, match="layers must be at least 1"):
        build("toy.layers=0")


def test_bool_is_no_number():
    with pytest.raises(UsageError):
        build("toy.layers=true")


def test_round_trip_through_plain_values():
    made = build("toy.sizes=[5]")
    assert build(base={"toy": to_dict(made)}) == made


def test_what_is_written_as_toml_is_read_back(tmp_path):
    sections = {
        "run": {
            "label": 'a "quoted" \\ päth\n🙂',
            "seeds": [1, 2],
            "names": [],
            "mixed": ["x,y", ""],
        },
        "train": {"lr": 1e-05, "big": 1e22, "epochs": 3, "amp": False},
        "fusion": {},
    }
    (tmp_path / "x.toml").write_text(to_toml(sections), encoding="utf-8")
    assert read_toml(tmp_path / "x.toml") == sections


def test_toml_errors(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(DataError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")


def test_a_config_that_breaks_the_contract():
    class Loose:
        Config = dict

    class Open:
        @dataclass(frozen=True)
        class Config:
            width: int

    class Nothing:
        @dataclass(frozen=True)
        class Config:
            width: int | None = None

    class Bare:
        pass

    for cls, reason in ((Loose, "no dataclass"), (Open, "without default"), (Nothing, "is None")):
        with pytest.raises(PluginError, match=reason):
            settings_of(cls, "the fusion")
    assert resolve({"x": settings_of(Bare, "the aligner")})["x"] is not None
