"""Every example that learns is trained for some steps and used: the answers are those of the models that it trained,
and the same in a new process.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from examples import caption, char_lm, forecast, image_rows, sentiment, speech, tagging, translate
from examples.common.experiment import Experiment, experiment
from examples.common.pictures import read_picture, write_picture
from examples.common.use import OnDevice
from examples.common.voices import write_wav
from tinygrad_rnn.data import Vocabulary, WordVocabulary, pad_sequences, read_wav, words
from tinygrad_rnn.data.vocabularies import BEGIN, END
from tinygrad_rnn.decoding import generate
from tinygrad_rnn.training import load_checkpoint

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
CPU = OnDevice()
CPU.device = "cpu"


class Trained:
    """A run of an example for some steps, and the `models` that it trained, by name."""

    def __init__(self, name: str, folder: Path, *argv: str, **keywords: Any) -> None:
        self.name, self.folder, self.keywords = name, folder, keywords
        self.module = importlib.import_module(f"examples.{name}")
        self.models: dict[str, tr.nn.Module] = {}
        fit = Experiment.fit

        def recorded(run: Experiment, name: str, model: tr.nn.Module, *args: Any, **options: Any) -> Any:
            self.models[name] = model
            return fit(run, name, model, *args, **options)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Experiment, "fit", recorded)
            assert self.run("--quick", "--out", str(folder), *argv) == 0

    def run(self, *argv: str) -> int:
        options = {"steps": 3, "quick": 3, "use": self.module.USE, **self.keywords}
        return experiment(self.module.main, **options, argv=argv)

    def manifest(self, model: str) -> dict[str, Any]:
        slug = model.lower().replace(" ", "-")
        return load_checkpoint(self.folder / "checkpoints", slug).manifest

    def new_process(self, *argv: str, **streams: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"examples.{self.name}", "--use", str(self.folder), *argv]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, **streams)


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """What a run answers, as objects: here and `again` in a new process. In plain text it answers, too."""

    def asked(trained: Trained, *argv: str, again: bool = True) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert trained.run("--use", str(trained.folder), *argv, "--json") == 0
        said = capsys.readouterr().out
        if again:
            done = trained.new_process(*argv, "--json")
            assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)
        assert trained.run("--use", str(trained.folder), *argv) == 0
        text = capsys.readouterr()
        assert text.out.strip() and not text.err
        return [json.loads(line) for line in said.splitlines()]

    return asked


def test_sentiment(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    data = tmp_path / "mine.tsv"
    rows = [f"a {'good' if k % 2 else 'bad'} film number {k}\t{k % 2}" for k in range(40)]
    data.write_text("\n".join(["sentence\tlabel", *rows]))
    more = {"data": "a file", "encoded": True, "data_options": sentiment.data_options}
    trained = Trained("sentiment", tmp_path / "run", "--data", str(data), **more)
    losses = {name: trained.manifest(name)["figures"]["held_out_loss"] for name in trained.models}
    best = min(losses, key=losses.__getitem__)  # of those that were trained, it is the best that answers
    texts = ["a good film", "no such word in this film"]
    answers = ask(trained, "--text", texts[0], "--text", texts[1])
    vocabulary = WordVocabulary(tuple(trained.manifest(best)["use"]["words"]))
    p = sentiment.favour(trained.models[best], [vocabulary.encode(words(text)) for text in texts])[:, 1]
    for k, answer in enumerate(answers):
        assert answer["text"] == texts[k] and answer["label"] == str(int(p[k] > 0.5))
        assert answer["probabilities"]["1"] == pytest.approx(p[k], abs=6e-5)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=2e-4)
    assert [answer["unknown"] for answer in answers] == [[], ["in", "no", "such", "this", "word"]]
    file = tmp_path / "new.txt"
    file.write_text(f"{texts[0]}\n\n{texts[1]}\n")
    lines = ask(trained, "--input", str(file), again=False)
    assert [(line.pop("file"), line.pop("line")) for line in lines] == [(str(file), 1), (str(file), 3)]
    assert lines == answers
    table = tmp_path / "new.csv"
    table.write_text(f'id;review\n7;"{texts[0]}"\n8;"no such word\nin this film"\n')
    rows = ask(trained, "--input", str(table), "--text-column", "review", again=False)
    assert [row["line"] for row in rows] == [2, 3] and [row["text"] for row in rows] == [
        texts[0],
        texts[1].replace("word ", "word\n"),
    ]
    assert [row["probabilities"] for row in rows] == [answer["probabilities"] for answer in answers]
    assert trained.run("--use", str(trained.folder), "--input", str(table)) == 2  # the run had another column
    said = "the header has id, review: choose the column of the texts (--text-column)"
    assert f"new.csv, line 1: no column 'sentence': {said}" in capsys.readouterr().err
    piped = trained.new_process("--input", "-", "--json", input=file.read_text())
    assert [json.loads(line)["probabilities"] for line in piped.stdout.splitlines()] == [
        answer["probabilities"] for answer in answers
    ]


def test_translate(tmp_path: Path, ask: Ask) -> None:
    pytest.importorskip("sacrebleu")
    number, word = ["eins", "zwei", "drei"], ["one", "two", "three"]
    rows = [f"{number[k % 3]} {number[k // 3 % 3]}\t{word[k % 3]} {word[k // 3 % 3]}" for k in range(40)]
    data = tmp_path / "pairs.tsv"
    data.write_text("\n".join(rows))
    trained = Trained("translate", tmp_path / "run", "--data", str(data), data="pairs", encoded=True)
    best = min(trained.models, key=lambda name: trained.manifest(name)["figures"]["held_out_loss"])
    [answer] = ask(trained, "--text", "Zwei vier")
    kept = trained.manifest(best)["use"]
    read, write = (WordVocabulary(tuple(kept[name])) for name in ("read", "write"))
    reader = trained.models[best].reader(*pad_sequences([read.encode(["zwei", "vier"])]))
    ends = {"begin": write[BEGIN], "end": write[END], "length": 4}
    ids, score = translate.beam_search(*reader, **translate.BEAM, **ends)[0]
    assert answer["translation"] == " ".join(write.decode(ids)) and answer["unknown"] == ["vier"]
    assert answer["score"] == pytest.approx(score, abs=1e-4)


def test_tagging(tmp_path: Path, ask: Ask) -> None:
    program = 'def double(x):  # twice\n    """Two\n    of it."""\n    return x + 2.5\n'
    for k in range(5):
        (tmp_path / f"{k}.py").write_text(program * 8)
    trained = Trained("tagging", tmp_path / "run", "--data", str(tmp_path), data="a folder")
    file = tmp_path / "new.py"
    file.write_text(program)
    [answer] = ask(trained, "--input", str(file))
    best = min(trained.models, key=lambda name: trained.manifest(name)["figures"]["error"])
    vocabulary = WordVocabulary(tuple(trained.manifest(best)["use"]["characters"]))
    around = "\n" * tagging.MARGIN
    tags = tagging.tagged(trained.models[best], vocabulary.encode(around + program + around))[
        len(around) : -len(around)
    ]
    lines = program.split("\n")
    for piece in answer["pieces"]:
        at = sum(len(line) + 1 for line in lines[: piece["line"] - 1]) + piece["column"] - 1
        assert program[at : at + len(piece["text"])] == piece["text"]
        seen = [tagging.TAGS[tags[at + k]] for k, c in enumerate(piece["text"]) if not c.isspace()]
        assert set(seen) == {piece["tag"]}
    true = tagging.tags_of(program, "new.py")
    visible = np.array([not c.isspace() for c in program])
    assert answer["as_tokenize"] == pytest.approx((tags == true)[visible].mean())
    found = list(tagging.pieces_of(program, true))
    assert found[:3] == [(1, 1, "keyword", "def"), (1, 5, "name", "double"), (1, 11, "operator", "(")]
    assert (3, 1, "string", '    of it."""') in found and (1, 17, "comment", "# twice") in found
    [answer] = ask(trained, "--text", "x = (", again=False)
    assert answer["as_tokenize"] is None and answer["text"] == "x = ("


def test_caption(tmp_path: Path, ask: Ask) -> None:
    pytest.importorskip("sklearn")
    trained = Trained("caption", tmp_path / "run", "--steps", "2")
    sample = trained.folder / "sample.png"
    [answer] = ask(trained, "--input", str(sample))
    picture = read_picture(sample, caption.HEIGHT, caption.WIDTH)
    assert answer["caption"] == caption.describe(CPU, trained.models["network"], picture.pixels[None])[0]
    assert not answer["swapped"]


def test_image_rows(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    rng, data = np.random.default_rng(0), tmp_path / "mnist"
    data.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        for kind, array in (("images", rng.integers(0, 256, (count, 7, 6))), ("labels", np.arange(count) % 10)):
            lengths = struct.pack(f">{array.ndim}I", *array.shape)
            content = bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()
            (data / f"{part}-{kind}").write_bytes(content)
    more = {"data": "a folder", "options": image_rows.options}
    trained = Trained("image_rows", tmp_path / "run", "--data", str(data), **more)
    assert len(trained.models) == 5
    x = rng.random((7, 6))
    x[0] = x[-1] = 0
    write_picture(tmp_path / "dark.png", x)
    write_picture(tmp_path / "light.png", 1 - np.rint(255 * x) / 255)
    files = [str(tmp_path / "dark.png"), str(tmp_path / "light.png")]
    dark, light = ask(trained, "--model", "lstm", "--input", *files)
    assert (dark.pop("file"), light.pop("file")) == tuple(files) and light.pop("swapped") and not dark.pop("swapped")
    assert dark["model"] == "LSTM" and dark["digit"] == light["digit"]
    pixels = tr.Tensor((np.rint(255 * x) / 255).astype(np.float32)[None])
    p = tr.softmax(trained.models["LSTM 1"](pixels), axis=-1).numpy()[0]
    np.testing.assert_allclose(dark["probabilities"], p, atol=6e-5)
    np.testing.assert_allclose(light["probabilities"], p, atol=2e-4)
    write_picture(tmp_path / "large.png", np.zeros((20, 30)))
    assert trained.run("--use", str(trained.folder), "--input", str(tmp_path / "large.png")) == 2
    said = "large.png: 30 x 20 pixels, and this run reads 6 x 7: --resize scales it\n"
    assert capsys.readouterr().err.endswith(said)


def test_speech(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "wav"
    data.mkdir()
    for k in range(12):
        noise = np.random.default_rng(k).normal(0, 0.1, 1600)
        write_wav(data / f"{'yes' if k % 2 else 'no'}_{k}.wav", noise, 8000)
    trained = Trained("speech", tmp_path / "run", "--data", str(data), data="recordings")
    file = data / "yes_1.wav"
    [answer] = ask(trained, "--input", str(file))
    model = trained.models["BiLSTM with CTC"]
    sound = speech.heard(*read_wav(file))
    assert [answer["words"]] == speech.listen(CPU, model, [sound], ["no", "yes"], speech.BEAM)
    assert answer["seconds"] == 0.2 and answer["file"] == str(file)
    write_wav(tmp_path / "other.wav", np.zeros(999), 44100)
    assert trained.run("--use", str(trained.folder), "--input", str(tmp_path / "other.wav")) == 2
    said = "other.wav: 44,100 samples a second, and this run hears 8,000: resample it\n"
    assert capsys.readouterr().err.endswith(said)


def test_char_lm(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(char_lm, "WRITTEN", 60)
    data = tmp_path / "mine.txt"
    data.write_text("one two three four five six seven\n" * 600)
    trained = Trained("char_lm", tmp_path / "run", "--data", str(data), "--steps", "2", data="a text", encoded=True)
    argv = ["--text", "two ", "--length", "30", "--temperature", "1.5", "--seed"]
    [answer], [other] = (ask(trained, *argv, seed, again=seed == "3") for seed in ("3", "4"))
    vocabulary = Vocabulary(trained.manifest("LSTM")["use"]["characters"])
    assert answer["written"] == "".join(generate(trained.models["LSTM"], vocabulary, "two ", 30, 1.5, seed=3))
    assert answer["written"] != other["written"] and len(other["written"]) == 30


# --- forecast -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A forecast of a wave that rises, and its file."""
    pytest.importorskip("pandas")  # which reads dates
    folder = tmp_path_factory.mktemp("forecast")
    rng = np.random.default_rng(0)
    values = [math.exp(0.01 * k + math.sin(k) + 0.1 * rng.normal()) for k in range(200)]
    data = folder / "mine.csv"
    days = [np.datetime64("2024-02-20") + k for k in range(200)]
    data.write_text("\n".join(["day,x", *(f"{day},{value}" for day, value in zip(days, values, strict=True))]))
    argv = ["--data", str(data), "--column", "x", "--season", "6", "--steps", "8"]
    more = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
    return Trained("forecast", folder / "run", *argv, **more), data


def quantiles(trained: Trained, s: forecast.Series, like: forecast.Series) -> np.ndarray:
    """Of the networks that were trained, in memory."""
    models = list(trained.models.values())
    margin = forecast.margins(like, forecast.together(CPU, like, models))
    return s.undone(forecast.widened(forecast.together(CPU, s, models), margin))


def test_a_forecast_is_that_of_the_networks_together(series: tuple[Trained, Path], ask: Ask, tmp_path: Path) -> None:
    trained, data = series
    table = tmp_path / "out.csv"
    [answer] = ask(trained, "--steps", "4", "--csv", str(table))
    values = forecast.read_csv(data, ["x"])["x"]
    s = forecast.Series("x", np.arange(200), values, 6)
    q = quantiles(trained, s, s)
    found = np.array([[step[key] for key in ("low", "forecast", "high")] for step in answer["forecast"]])
    np.testing.assert_allclose(found, q[-1, :4], rtol=1e-6)
    assert (np.diff(found, axis=1) >= 0).all() and answer["values"] == 200 and answer["interval"] == 0.8
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["series"] for row in rows] == ["x"] * 4 and [row["step"] for row in rows] == list("1234")
    written = [[float(row[key]) for key in ("low", "forecast", "high")] for row in rows]
    np.testing.assert_array_equal(written, found)


def test_the_intervals_hold_as_often_as_it_says(series: tuple[Trained, Path], ask: Ask) -> None:
    """The share is counted here one by one: of the last quarter, each value by each forecast that was made of it."""
    trained, data = series
    [answer] = ask(trained, again=False)
    values = forecast.read_csv(data, ["x"])["x"]
    s = forecast.Series("x", np.arange(200), values, 6)
    q = quantiles(trained, s, s)
    held = [
        q[t, h, 0] <= values[t + 1 + h] <= q[t, h, 2]
        for t in range(149, 199)
        for h in range(6)
        if 150 <= t + 1 + h < 200
    ]
    assert answer["held"] == pytest.approx(np.mean(held), abs=1e-4) and answer["held_on"] == 50
    results = json.loads((trained.folder / "results.json").read_text())
    assert results["tables"][0]["rows"][-1][3] == f"{100 * answer['held']:.0f} %"
    assert 0.6 <= answer["held"] <= 0.95  # of 80 % that it should be


def test_a_newer_file_is_gone_on_with(series: tuple[Trained, Path], ask: Ask, tmp_path: Path) -> None:
    """By the networks, and on the scale, of the run; the same file gives the same."""
    trained, data = series
    [same], [first] = ask(trained, "--input", str(data)), ask(trained, again=False)
    assert same == first
    newer = tmp_path / "newer.csv"
    newer.write_text("\n".join([data.read_text(), "2024-09-07,9.5", "2024-09-08,8.5"]))
    [answer] = ask(trained, "--input", str(newer), again=False)
    assert answer["values"] == 202 and answer["forecast"] != first["forecast"]
    assert first["forecast"][0]["time"] == "2024-09-07" and answer["forecast"][-1]["time"] == "2024-09-14"
    values = forecast.read_csv(newer, ["x"])["x"]
    scaling = trained.manifest("x 1")["use"]["scaling"]
    assert scaling == forecast.Series("x", np.arange(200), values[:200], 6).scaling
    s = forecast.Series("x", np.arange(202), values, 6, scaling)
    q = quantiles(trained, s, forecast.Series("x", np.arange(200), values[:200], 6))
    np.testing.assert_allclose([step["forecast"] for step in answer["forecast"]], q[-1, :, 1], rtol=1e-6)


DAYS = "day,x\n" + "".join(f"2024-01-{k},{20 - k}\n" for k in range(10, 21))
YEARS = "day,x\n" + "".join(f"20{k},1\n" for k in range(10, 30))


@pytest.mark.parametrize(
    ("content", "argv", "message"),
    [
        ("", ["--steps", "7"], "--steps 7: of x a season is forecast, 1 to 6 steps"),
        ("", ["--season", "3"], "--season is of training, and --use trains nothing: leave it out"),
        ("", ["--column", "y"], "--column says how --input is read, and there is none: give both"),
        ("", ["--series", "z"], "{run}: no series 'z' in it: there is x"),
        (DAYS[:33], ["--input", "{file}"], "{file}: 2 values, and more than a season is needed, 7"),
        (DAYS, ["--input", "{file}"], "{file}: the value 0: of the values that were trained on, all are above 0"),
        (YEARS, ["--input", "{file}"], "{file}: its steps are a year, and those that were trained on a day"),
        ("z\n" + "1\n" * 9, ["--input", "{file}"], "{file}, line 1: no column 'x': the header has z"),
        ("", ["--csv", "{file}/x.csv"], "{file}/x.csv: there is no folder {file}"),
        ("x\n1\n", ["--input", "{file}", "{file}"], "--input takes one file here, of one series"),
    ],
)
def test_wrong_questions_of_a_forecast_are_one_line(
    series: tuple[Trained, Path],
    content: str,
    argv: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained, file = series[0], tmp_path / "new.csv"
    file.write_text(content)
    names = {"run": trained.folder, "file": file}
    assert trained.run("--use", str(trained.folder), *(word.format(**names) for word in argv)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"forecast: {message.format(**names)}") and shown.err.count("\n") == 1 and not shown.out
