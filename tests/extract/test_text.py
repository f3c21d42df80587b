from __future__ import annotations

import json
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from mertool.errors import MertoolError, MertoolWarning, UsageError
from mertool.extract.text import PACKAGE, Bert, MiniLM
from mertool.types import Clip, Rows
from mertool.words import split_words

WORDS = ["the", "movie", "was", "good", "un", "##believ", "##able", ".", ",", "-", "我", "爱"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers that reads 16 tokens at once."""
    folder = tmp_path_factory.mktemp("bert")
    save(folder)
    return folder


def save(folder: Path, **config: int) -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16} | config
    sizes = {"hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 24}
    # Wide weights: with the usual 0.02, a token's neighbours hardly show in its state.
    model = BertModel(BertConfig(num_hidden_layers=2, initializer_range=0.5, **sizes, **settings))
    model.save_pretrained(folder)
    vocab = {token: i for i, token in enumerate(VOCABULARY)}
    BertTokenizer(vocab=vocab).save_pretrained(folder)


def extract(folder: Path, text: str, **settings: int | str) -> Rows:
    extractor = Bert(Bert.Config(model=str(folder), **settings))
    rows = extractor.extract(Clip("clip", text=text))
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32
    assert rows.times.shape == (len(rows), 2) and not rows.times.any()
    assert rows.word is not None and rows.word.shape == (len(rows),)
    assert rows.span is not None and rows.span.shape == (len(rows), 2)
    assert rows.word.dtype == rows.span.dtype == np.int32
    return rows


def states(folder: Path, ids: list[int], layer: int = -1) -> np.ndarray:
    """What the model says of the tokens between [CLS] and [SEP], asked directly."""
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(torch.tensor([[CLS, *ids, SEP]]), output_hidden_states=True)
    return out.hidden_states[layer][0, 1:-1].numpy()


def ids_of(folder: Path, text: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]


def test_short_text_is_as_read_directly(folder: Path) -> None:
    text = "The movie was unbelievable."
    rows = extract(folder, text)
    assert [text[a:b] for a, b in rows.span] == [
        "The", "movie", "was", "un", "believ", "able", ".",
    ]  # fmt: skip
    assert rows.word.tolist() == [0, 1, 2, 3, 3, 3, 3]
    expected = states(folder, [VOCABULARY.index(w) for w in WORDS[:3] + WORDS[4:8]])
    np.testing.assert_allclose(rows.values, expected, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, -2, -3])
def test_layer(folder: Path, layer: int) -> None:
    rows = extract(folder, "the movie", layer=layer)
    expected = states(folder, ids_of(folder, "the movie"), layer)
    np.testing.assert_allclose(rows.values, expected, atol=1e-6)


@pytest.mark.parametrize("layer", [3, -4])
def test_layer_that_is_not_there(folder: Path, layer: int) -> None:
    with pytest.raises(UsageError, match="no layer"):
        extract(folder, "the", layer=layer)


@pytest.mark.parametrize("count", [14, 15, 21, 22, 40])
def test_long_text_is_read_in_windows(folder: Path, count: int) -> None:
    """Every token has the state it gets in the window where the nearest cut is farthest."""
    words = [WORDS[k % 4] for k in np.random.default_rng(count).integers(0, 100, count)]
    ids = [VOCABULARY.index(w) for w in words]
    rows = extract(folder, " ".join(words))
    assert len(rows) == count
    assert rows.word.tolist() == list(range(count))
    size = 16 - 2
    starts = []
    while not starts or starts[-1] + size < count:
        starts.append(max(0, min(7 * len(starts), count - size)))
    seen = {s: states(folder, ids[s : s + size]) for s in starts}
    for i in range(count):
        distances = {}
        for s in starts:
            if s <= i < s + size:
                to_left = i - s if s > 0 else 10**6
                to_right = s + size - 1 - i if s + size < count else 10**6
                distances[s] = min(to_left, to_right)
        best = [s for s, d in distances.items() if d == max(distances.values())]
        assert any(np.allclose(rows.values[i], seen[s][i - s], atol=1e-5) for s in best), i
    if count >= 21:  # the first window alone would have given other numbers
        assert not np.allclose(rows.values[:size], seen[0], atol=1e-2)


def test_words_and_spans(folder: Path) -> None:
    text = "- the  movie - ,\n我爱good"
    rows = extract(folder, text)
    assert [text[a:b] for a, b in rows.span] == ["-", "the", "movie", "-", ",", "我", "爱", "good"]
    assert rows.word.tolist() == [0, 0, 1, 1, 1, 2, 3, 4]
    assert len(split_words(text)) == 5


@pytest.mark.parametrize("text", ["Привет, как дела?", "กขค", "🙂🙂", "na\u0131\u0308ve \x00 the"])
def test_other_scripts_give_finite_rows(folder: Path, text: str) -> None:
    rows = extract(folder, text)
    assert len(rows) > 0
    assert np.isfinite(rows.values).all()
    assert (rows.word < max(1, len(split_words(text)))).all()
    assert (rows.span <= len(text)).all()


def test_special_tokens_written_in_the_text_are_text(folder: Path) -> None:
    rows = extract(folder, "[SEP] the [CLS]")
    assert rows.span.tolist() == [[0, 5], [6, 9], [10, 15]]
    np.testing.assert_allclose(
        rows.values, states(folder, [SEP, VOCABULARY.index("the"), CLS]), atol=1e-6
    )


@pytest.mark.parametrize("text", ["", " \n ", "\x00"])
def test_no_text(folder: Path, text: str) -> None:
    with pytest.warns(MertoolWarning, match="no text"):
        rows = extract(folder, text)
    assert len(rows) == 0


def test_info(folder: Path) -> None:
    extractor = Bert(Bert.Config(model=str(folder)))
    assert extractor.columns[:2] == ["dim000", "dim001"]
    assert extractor.info["model"] == str(folder)
    assert extractor.info["timed"] == "false"
    assert extractor.info["licence"] == "unknown"


def metaspace_model(folder: Path) -> None:
    """RoBERTa: positions begin behind the padding index, tokens may start with their space."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁movie", "▁good"]
    model = models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(
        vocab_size=7, max_position_embeddings=12, num_hidden_layers=1, pad_token_id=1, **sizes
    )
    RobertaModel(config).save_pretrained(folder)


def test_spans_leave_out_the_space_before_a_word(tmp_path: Path) -> None:
    metaspace_model(tmp_path)
    text = ("the movie good " * 10).strip()
    rows = extract(tmp_path, text)
    assert [text[a:b] for a, b in rows.span] == text.split()
    assert rows.word.tolist() == list(range(30))


def plain_pool(rows: Rows, text: str, how: str) -> dict[int, np.ndarray]:
    """{word: its row}, piece by piece."""
    found: dict[int, list[np.ndarray]] = {}
    for value, word, (a, b) in zip(rows.values, rows.word, rows.span, strict=True):
        if any(c.isalnum() for c in text[a:b]):
            found.setdefault(int(word), []).append(value.astype(float))
    pools = {"mean": lambda v: sum(v) / len(v), "first": lambda v: v[0], "last": lambda v: v[-1]}
    return {word: pools[how](values) for word, values in found.items()}


@pytest.mark.parametrize(
    ("how", "pieces"), [("mean", [3, 4, 5]), ("first", [3]), ("last", [5])], ids=str
)
def test_a_row_per_word(folder: Path, how: str, pieces: list[int]) -> None:
    text = "The movie, - was unbelievable."
    tokens = ["the", "movie", ",", "-", "was", "un", "##believ", "##able", "."]
    rows = extract(folder, text, pool=how)
    assert rows.word.tolist() == [0, 1, 2, 3]
    assert [text[a:b] for a, b in rows.span] == ["The", "movie,", "was", "unbelievable."]
    seen = states(folder, [VOCABULARY.index(t) for t in tokens])
    expected = [seen[0], seen[1], seen[4], np.mean([seen[i + 2] for i in pieces], axis=0)]
    np.testing.assert_allclose(rows.values, expected, atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "first", "last"])
def test_long_text_is_not_cut_before_it_is_pooled(folder: Path, how: str) -> None:
    """Words of three pieces, some of which lie across the cuts of windows of 14 pieces."""
    text = "the unbelievable, movie was unbelievable. " * 12
    pieces, rows = extract(folder, text), extract(folder, text, pool=how)
    assert len(pieces) == 12 * 11
    assert rows.word.tolist() == list(range(5 * 12))
    assert [text[a:b] for a, b in rows.span] == text.split()
    expected = plain_pool(pieces, text, how)
    np.testing.assert_allclose(rows.values, [expected[w] for w in range(60)], atol=1e-6)


def test_a_word_without_pieces_has_no_row(tmp_path: Path) -> None:
    """A token of two letters that are words each belongs to the first of them."""
    metaspace_model(tmp_path)
    text = "the 我爱 movie"
    assert len(split_words(text)) == 4
    for how in ("none", "mean", "first", "last"):
        rows = extract(tmp_path, text, pool=how)
        assert rows.word.tolist() == [0, 1, 3]


def test_punctuation_alone_is_no_word(folder: Path) -> None:
    assert len(extract(folder, ". ,")) == 2
    with pytest.warns(MertoolWarning, match="no words"):
        assert len(extract(folder, ". ,", pool="mean")) == 0


@pytest.mark.parametrize("config", [Bert.Config, MiniLM.Config])
def test_pooling_that_is_not_there(config: type) -> None:
    with pytest.raises(ValueError, match="pool='max' must be one of none, mean, first, last"):
        config(pool="max")


def test_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    save(tmp_path)
    sizes = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "d_model": 8}
    config = BartConfig(
        vocab_size=len(VOCABULARY), encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
        decoder_ffn_dim=8, max_position_embeddings=32, **sizes,
    )  # fmt: skip
    model = BartModel(config).eval()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).unlink()
    model.save_pretrained(tmp_path)
    rows = extract(tmp_path, "the movie")
    ids = torch.tensor([[CLS, *ids_of(tmp_path, "the movie"), SEP]])
    with torch.no_grad():
        expected = model.get_encoder()(ids).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(rows.values, expected.numpy(), atol=1e-6)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(MertoolError, match="refused"):
        extract(tmp_path, "the")


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    save(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.C"}, "model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MertoolError, match="cannot be loaded"):
        extract(tmp_path, "the")
    assert not mark.exists()


def test_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    for file in (*tmp_path.glob("tokenizer*"), *tmp_path.glob("vocab*")):
        file.unlink()
    with pytest.raises(MertoolError, match="no tokenizer"):
        extract(tmp_path, "the")


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MertoolError, match=r"1 weights are missing.*layer\.1"):
        extract(tmp_path, "the")


def test_tokenizer_of_another_model_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, vocab_size=9)
    with pytest.raises(MertoolError, match="17 tokens for 9 embeddings"):
        extract(tmp_path, "the")


@pytest.mark.parametrize("content", [b"", b"garbage of some length"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_broken_files(tmp_path: Path, file: str, content: bytes) -> None:
    save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(MertoolError) as caught:
        extract(tmp_path, "the")
    assert caught.value.where and caught.value.fix


@pytest.mark.parametrize("model", ["nobody/no-such-model-2718", "/no/such/folder", "../x"])
def test_unreachable_model(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MertoolError, match="downloaded") as caught:
        Bert(Bert.Config(model=model))
    assert "--set text.model=DIR" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 3


def test_model_from_the_hub_keeps_its_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A hub model in the cache is used offline; its commit is recorded."""
    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    save(snapshot)
    (snapshot / "README.md").write_text("---\nlanguage: en\nlicense: cc0-1.0\n---\n# Tiny\n")
    refs = tmp_path / "models--somebody--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123456789" * 4)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    extractor = Bert(Bert.Config(model="somebody/tiny"))
    assert extractor.info["model"] == "somebody/tiny"
    assert extractor.info["revision"] == "0123456789" * 4
    assert extractor.info["licence"] == "cc0-1.0"


def test_nothing_on_stderr(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extract(folder, "the movie " * 100)
    assert capfd.readouterr().err == ""


def test_empty_model_name() -> None:
    with pytest.raises(ValueError, match="model"):
        Bert.Config(model=" ")


def test_unknown_device(folder: Path) -> None:
    with pytest.raises(UsageError):
        Bert(Bert.Config(model=str(folder)), device="abacus")


@pytest.mark.gpu
def test_gpu_gives_the_same(folder: Path) -> None:
    clip = Clip("clip", text="the movie was unbelievable " * 9)
    config = Bert.Config(model=str(folder))
    on_gpu = Bert(config, "cuda").extract(clip).values
    np.testing.assert_allclose(on_gpu, Bert(config, "cpu").extract(clip).values, atol=1e-3)


def test_minilm() -> None:
    if util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed")
    sys.modules.pop(PACKAGE, None)
    extractor = MiniLM(MiniLM.Config())
    assert PACKAGE not in sys.modules
    assert len(extractor.columns) == 384
    assert "sentence-embedding" in str(extractor.info["model"])
    assert extractor.info["licence"] == "apache-2.0"

    def mean(text: str) -> np.ndarray:
        values = extractor.extract(Clip("clip", text=text)).values.mean(axis=0)
        return values / np.linalg.norm(values)

    # The real weights are in: near in meaning is near in space.
    query = mean("I loved this film.")
    assert query @ mean("What a great movie!") > query @ mean("The bus stops at the corner.") + 0.2


def test_minilm_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mertool.extract.text.PACKAGE", "no_such_package_2718")
    with pytest.raises(MertoolError, match="not installed") as caught:
        MiniLM(MiniLM.Config())
    assert 'pip install "mertool[offline]"' in caught.value.fix


@pytest.mark.hub
def test_bert_base() -> None:
    rows = Bert(Bert.Config()).extract(Clip("clip", text="An unbelievable movie."))
    assert rows.values.shape[1] == 768
