"""What `rsvp eval` refuses, it refuses before it loads or writes anything; one's own data."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import polygon, write_reasonseg
from PIL import Image as Pil
from rectangles import SIZE, A, filled, write_scenes
from staged import Server, pipeline

from rsvp.cli.main import main
from rsvp.errors import MissingExtra, ModelUnavailable
from rsvp.evaluation import runner
from rsvp.evaluation.score import score
from rsvp.masks import encode_rle
from rsvp.pipeline import Pipeline
from rsvp.platform import extras


@pytest.fixture
def loaded(monkeypatch):
    """How often a pipeline was made."""
    made = []
    monkeypatch.setattr(Pipeline, "from_preset", lambda *_, **__: made.append(1) or pipeline())
    return made


def command(data, out="deep/out", *more):
    return ["eval", "scenes", "--data", str(data), "--out", str(out), *more]


def hide(monkeypatch, *modules):
    """An environment without these libraries."""

    def missing(module, extra, feature=None):
        if module in modules:
            raise MissingExtra(feature or module, extra)
        return extras.importlib.import_module(module)

    for user in ("rsvp.datasets.reasonseg", "rsvp.datasets.tables", "rsvp.evaluation.runner"):
        monkeypatch.setattr(f"{user}.require", missing)
    monkeypatch.setattr("rsvp.cli.engines.require", missing)


def test_broken_data_and_folders_are_found_first(tmp_path, monkeypatch, loaded, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_scenes(tmp_path / "data", 2)
    cases = {
        "budget": [*command(data), "--budget", "dollars=3"],
        "is not empty": command(data, data),
        "Not a directory": command(data, data / "000.png" / "out"),
        "holds no run to resume": [*command(data, data), "--resume"],
    }
    for said, words in cases.items():
        assert main(words) == 2
        assert said in capsys.readouterr().err
    (data / "001.png").unlink()
    assert main(command(data)) == 2
    assert "no such image file" in capsys.readouterr().err
    assert loaded == []
    assert not (tmp_path / "deep").exists()


def test_a_missing_extra_is_found_first(tmp_path, monkeypatch, loaded, capsys):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "cv2", "scipy.optimize", "ray")
    shapes = {"a": (True, [polygon("target", 0, 0, 10, 10)])}
    write_reasonseg(tmp_path / "val", shapes)
    data = write_scenes(tmp_path / "data", 1)
    for words, extra in (
        (["eval", "reasonseg", "--data", "val", "--out", "out"], "eval"),
        (["eval", "vrt", "--data", "data", "--out", "out"], "eval"),
        ([*command(data, "out"), "--engine", "ray"], "ray"),
    ):
        assert main(words) == 4
        assert f"pip install 'rsvp-segmentation[{extra}]'" in capsys.readouterr().err
    assert loaded == []
    assert not Path("out").exists()


@pytest.mark.parametrize("lazy", [False, True], ids=["at construction", "at the first sample"])
def test_a_missing_model_leaves_nothing(tmp_path, monkeypatch, lazy, capsys):
    monkeypatch.chdir(tmp_path)
    gone = ModelUnavailable("no weights: hf download them")
    made = pipeline(Server(replies=dict.fromkeys(range(2), gone)))

    def make(*_, **__):
        if not lazy:
            raise gone
        return made

    monkeypatch.setattr(Pipeline, "from_preset", make)
    data = write_scenes(tmp_path / "data", 2)
    assert main(command(data)) == 4
    assert "hf download them" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_was_there_stays(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with runner.locked(tmp_path / "out" / "new"):
        assert (tmp_path / "out" / "new").is_dir()
    assert [*(tmp_path / "out").iterdir()] == []
    with runner.locked(tmp_path / "out"):
        pass
    assert (tmp_path / "out").is_dir()


# ------------------------------------------------------------ one's own data


def write_jsonl(folder: Path) -> Path:
    """Two queries on one image: box A, and nothing."""
    Pil.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "a.png")
    lines = [
        {"id": f"{n}", "image": "a.png", "query": f"query {n}", "kind": "mine", "masks": masks}
        for n, masks in enumerate(([encode_rle(filled(A))], []))
    ]
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def write_coco(folder: Path) -> Path:
    """One category on one image: box A."""
    (folder / "images").mkdir()
    Pil.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "images" / "a.png")
    image = {"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1], "split": "val"}
    one = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": encode_rle(filled(A))}
    document = {
        "images": [image],
        "categories": [{"id": 7, "name": "query 0"}],
        "annotations": [one],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


OWN = {"jsonl": write_jsonl, "coco": write_coco}


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(("name", "giou"), [("jsonl", 0.5), ("coco", 0.0)])
@pytest.mark.parametrize("form", ["spec", "name"])
def test_own_data_is_evaluated_and_scored(tmp_path, name, giou, form, capsys):
    data, out = OWN[name](tmp_path), tmp_path / "out"
    what = ["--data", f"{name}:{data}"] if form == "spec" else [name, "--data", str(data)]
    assert main(["eval", *what, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # `Server` names no box for query 0 and one that is not the truth's for query 1.
    assert found["giou"]["mean"] == 0.0
    assert found["oracle"]["mean"] == 1.0
    predictions = tmp_path / "mine.txt"
    rows = [{"id": i, "masks": []} for i in {"jsonl": ("0", "1"), "coco": ("1/7",)}[name]]
    predictions.write_text("\n".join(map(json.dumps, rows)))
    assert score(name, data, predictions).to_dict()["giou"]["mean"] == giou


def test_an_images_split_is_chosen(tmp_path, loaded, capsys):
    what = ["eval", "coco", "--data", str(write_coco(tmp_path)), "--out", str(tmp_path / "out")]
    assert main([*what, "--split", "test"]) == 2
    assert "no image of split 'test'; found val" in capsys.readouterr().err
    assert main([*what, "--split", "val"]) == 0
