"""Questions about images: V*, HR-Bench, POPE, MMVP, HallusionBench, MMBench and VisuLogic.

Each reader takes the benchmark's folder (or its file) and gives its questions in the file's order.
It raises BadInput where a file is missing or broken, with its name and the line or id, and where a
folder holds several tables; and MissingExtra for a Parquet table without pyarrow.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from rsvp.datasets import BaseDataset, GroundTruthObject, digest_files, inside
from rsvp.datasets.annotations import AnnotationModel
from rsvp.datasets.tables import ParquetTable, TsvTable, open_csv, open_table, optional_texts
from rsvp.errors import BadInput
from rsvp.parsing.answers import LETTERS
from rsvp.platform.files import parse_json, read_bytes, validate

YES, NO = "yes", "no"
# Where the images may be.
POPE_TOPS = ("", "val2014/", "images/")
MMVP_TOPS = ("MMVP Images/", "images/", "")
HALLUSION_TOPS = ("", "hallusion_bench/")
VSTAR_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".webp")
ROTATION = 1_000_000  # MMBench: the k-th rotation of question i has the index i + k times this


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its right answer.

    Attributes:
        id: unique in its dataset, the same in every run.
        image: the file or its bytes; None where there is nothing to see (HallusionBench), and in
            `QuestionDataset.questions`.
        options: what A, B, C … stand for; none for a yes-or-no question.
        answer: the right letter, or "yes" or "no"; None where the benchmark keeps it secret.
        kind: the benchmark's own class of questions, by which scores are also reported.
        group: keys of the groups that only count together, as the benchmark has them.
        tags: further groups by which scores are reported.
    """

    id: str
    image: Path | bytes | None = field(repr=False)
    question: str
    options: tuple[str, ...] = ()
    answer: str | None = None
    kind: str = "all"
    group: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = tuple(LETTERS[: len(self.options)]) or (YES, NO)
        if self.answer is not None and self.answer not in allowed:
            raise BadInput(f"{self.id}: the answer is one of {allowed}, found {self.answer!r}")


QuestionImage = Path | Callable[[], bytes] | None
Entry = tuple[Question, QuestionImage]
Row = tuple[Any, str]  # a document, and how errors name it
Fields = tuple[list[str], dict[str, Any]]  # the files that an image may be, what a Question has


class QuestionDataset(BaseDataset):
    """The questions of a benchmark.

    Attributes:
        questions: all of them, without their images.
        has_true_looks: whether `true_looks` knows what questions are about.
    """

    has_true_looks: ClassVar[bool] = False

    def __init__(self, entries: Iterable[Entry], digest: str, file: Path) -> None:
        found = list(entries)
        self.questions = [question for question, _ in found]
        self._images = [image for _, image in found]
        super().__init__(file, digest, [question.id for question in self.questions])

    def true_looks(self, index: int) -> tuple[GroundTruthObject, ...]:  # noqa: ARG002
        """What a closer look has to show for a question, where the benchmark knows it."""
        return ()

    def image_file(self, index: int) -> Path | None:
        image = self._images[index]
        return image if isinstance(image, Path) else None

    def __getitem__(self, index: int) -> Question:
        image = self._images[index]
        return replace(self.questions[index], image=image() if callable(image) else image)


def _as_text(value: object) -> object:
    """Some editions of a file hold a number where others hold text."""
    return str(value) if type(value) is int else value


NumberText = Annotated[str, BeforeValidator(_as_text)]


class _VstarLine(AnnotationModel):
    # A line of ``test_questions.jsonl``; `text` ends in the options (A), (B), …
    image: str
    text: str
    label: str
    category: str

    def entry(self) -> Fields:
        options = re.findall(r"^\(([A-Z])\) *(.*)$", self.text, re.MULTILINE)
        if not options or [letter for letter, _ in options] != list(LETTERS[: len(options)]):
            raise BadInput("the options are not (A), (B), …")
        path = Path(self.image)
        return [self.image], {
            "id": (path.with_suffix("") if path.name else path).as_posix(),
            "question": self.text.partition("\n(A)")[0].strip(),
            "options": tuple(option.strip() for _, option in options),
            "answer": self.label,
            "kind": self.category,
        }


class _VstarFile(AnnotationModel):
    # ``<kind>/<name>.json``; the first option is the right one, so they are shuffled by the id
    question: str
    options: Annotated[list[str], Field(min_length=2, max_length=len(LETTERS))]

    def entry(self, name: str) -> Fields:
        order = list(range(len(self.options)))
        random.Random(name).shuffle(order)
        return [name + suffix for suffix in VSTAR_SUFFIXES], {
            "id": name,
            "question": self.question.strip(),
            "options": tuple(self.options[place] for place in order),
            "answer": LETTERS[order.index(0)],
            "kind": name.partition("/")[0],
        }


class _VisuLogicLine(AnnotationModel):
    # A line of ``data.jsonl``; the options are in the picture and in the question
    id: NumberText
    image_path: str
    question: str
    label: str
    tag: str = "all"

    def entry(self) -> Fields:
        return [self.image_path], {
            "id": self.id,
            "question": self.question.strip(),
            "options": tuple(LETTERS[:4]),
            "answer": self.label.strip().upper(),
            "kind": self.tag,
        }


class _PopeLine(AnnotationModel):
    # A line of ``coco_pope_<kind>.json``
    question_id: NumberText
    image: str
    text: str
    label: str

    def entry(self, prefix: str, kind: str) -> Fields:
        return [top + self.image for top in POPE_TOPS], {
            "id": f"{prefix}{self.question_id}",
            "question": self.text,
            "answer": self.label,
            "kind": kind,
        }


class _MmvpRow(AnnotationModel):
    # A row of ``Questions.csv``; the options are (a), (b), … in one text
    model_config = ConfigDict(str_strip_whitespace=True)
    # "lndex" with a small L is what public copies of the file have.
    index: Annotated[
        str, Field(validation_alias=AliasChoices("Index", "lndex"), pattern="^[0-9]{1,9}$")
    ]
    question: Annotated[str, Field(alias="Question")]
    options: Annotated[str, Field(alias="Options")]
    answer: Annotated[str, Field(alias="Correct Answer")]

    def entry(self) -> Fields:
        _, *parts = re.split(r"\(([a-z])\)", self.options)
        letters = "".join(parts[::2])
        if not letters or not LETTERS.lower().startswith(letters):
            raise BadInput("the options are not (a), (b), …")
        return [f"{top}{self.index}.jpg" for top in MMVP_TOPS], {
            "id": self.index,
            "question": self.question,
            "options": tuple(part.strip() for part in parts[1::2]),
            "answer": self.answer.strip("() ").upper(),
            "group": (str((int(self.index) + 1) // 2),),
        }


class _HallusionEntry(AnnotationModel):
    # An entry of ``HallusionBench.json``
    category: NumberText
    subcategory: NumberText
    set_id: NumberText
    figure_id: NumberText
    question_id: NumberText
    visual_input: NumberText
    question: str
    gt_answer: Annotated[Literal["0", "1"], BeforeValidator(_as_text)]

    def entry(self) -> Fields:
        name = f"{self.category}/{self.subcategory}/{self.set_id}_{self.figure_id}.png"
        names = [top + name for top in HALLUSION_TOPS] if self.visual_input != "0" else []
        key = f"{self.category}_{self.subcategory}_{self.set_id}"
        # VS questions are asked without their figure first; VD's first figure is the original one.
        figure = "" if (self.category, self.figure_id) == ("VS", "0") else f"{key}_{self.figure_id}"
        return names, {
            "id": f"{key}_{self.figure_id}_{self.question_id}",
            "question": self.question,
            "answer": YES if self.gt_answer == "1" else NO,
            "kind": self.category,
            "group": (figure, f"{key}_{self.question_id}"),
        }


def vstar(folder: str | Path) -> QuestionDataset:
    """V*Bench: ``test_questions.jsonl``, else ``<kind>/*.json``, whose options are shuffled."""
    root = Path(folder)
    listed = root / "test_questions.jsonl"
    if listed.is_file():
        return _one_file(_VstarLine, listed, _json_lines)
    found, single = list[tuple[str, bytes]](), list[Entry]()
    for file in sorted(root.glob("*/*.json")):
        name, data = file.relative_to(root).with_suffix("").as_posix(), read_bytes(file)
        found.append((name, data))
        single += _entries(_VstarFile, [(parse_json(data, str(file)), str(file))], root, name)
    return QuestionDataset(single, digest_files(found), root)


def visulogic(folder: str | Path) -> QuestionDataset:
    """VisuLogic: ``data.jsonl`` and ``images/``; the options are A to D, kind is the tag."""
    file = Path(folder)
    return _one_file(_VisuLogicLine, file / "data.jsonl" if file.is_dir() else file, _json_lines)


def hrbench(folder: str | Path, split: str | None = None) -> QuestionDataset:
    """HR-Bench 4K or 8K: a TSV or Parquet file; kind is single or cross, group the rotation.

    Args:
        split: which one, where a folder has several: ``4k``, ``8k``, or the file's whole name.
    """
    table = open_table(Path(folder), split)
    rotations = [(rotation,) for rotation in optional_texts(table, "cycle_category", "0")]
    return QuestionDataset(_choices(table, rotations), table.digest, table.file)


def mmbench(folder: str | Path, split: str | None = None) -> QuestionDataset:
    """MMBench: a TSV or Parquet file; group is the question that its rotations share.

    A file without rotations gets them: in the k-th the options are moved k places to the left.

    Args:
        split: which one, where a folder has several, e.g. ``dev``.
    """
    table = open_table(Path(folder), split)
    indices = table.texts("index")
    for index in indices:
        if not re.fullmatch("[0-9]{1,12}", index):
            raise BadInput(f"{table.file}: the index {index!r} is not a whole number")
    entries = list(_choices(table, [(str(int(index) % ROTATION),) for index in indices]))
    if all(int(index) < ROTATION for index in indices):
        entries = [(rotated, p) for question, p in entries for rotated in _rotations(question)]
    return QuestionDataset(entries, table.digest, table.file)


def pope(folder: str | Path) -> QuestionDataset:
    """POPE: ``*pope_<kind>.json`` with a JSON object a line, images beside or in ``val2014``.

    An id is the question_id, after ``<file>/`` where there are several files.
    """
    root = Path(folder)
    files = [root] if root.is_file() else sorted(root.glob("*pope_*.json*"))
    images = root.parent if root.is_file() else root
    found = {file: read_bytes(file) for file in files}
    entries: list[Entry] = []
    for file, data in found.items():
        prefix, kind = f"{file.stem}/" * (len(found) > 1), file.stem.rpartition("pope_")[2]
        entries += _entries(_PopeLine, _json_lines(data, file), images, prefix, kind)
    return QuestionDataset(entries, digest_files((f.name, d) for f, d in found.items()), root)


def mmvp(folder: str | Path) -> QuestionDataset:
    """MMVP: ``Questions.csv`` and ``MMVP Images/<index>.jpg``; group is the pair."""
    root = Path(folder)
    file = root / "Questions.csv"
    with open_csv(file) as stream:
        data = stream.read()
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    entries = _entries(_MmvpRow, ((row, f"{file}: row {n}") for n, row in enumerate(rows)), root)
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


def hallusionbench(folder: str | Path) -> QuestionDataset:
    """HallusionBench: ``HallusionBench.json`` and the images, there or in ``hallusion_bench``.

    Kind is VD or VS. Group is (figure, question); the figure is "" where there is none to see.
    """
    return _one_file(_HallusionEntry, Path(folder) / "HallusionBench.json", _json_list)


def _choices(table: ParquetTable | TsvTable, groups: Sequence[tuple[str, ...]]) -> Iterator[Entry]:
    """The rows of a table of multiple-choice questions."""
    columns = [table.texts(name) for name in LETTERS if name in table.columns]
    indices, questions, kinds = (table.texts(n) for n in ("index", "question", "category"))
    hints, answers = optional_texts(table, "hint"), optional_texts(table, "answer")
    for row, index in enumerate(indices):
        options = [_without_nan(column[row]) for column in columns]
        while options and not options[-1]:
            options.pop()
        if len(options) < 2:
            raise BadInput(f"{table.file}: {index}: fewer than two options")
        text = "\n".join(filter(None, (_without_nan(hints[row]), questions[row])))
        answer, more = answers[row] or None, (kinds[row], groups[row])
        with _named(str(table.file)):
            question = Question(index, None, text, tuple(options), answer, *more)
        yield question, partial(table.image, row)


def _without_nan(text: str) -> str:
    """The text of a cell; pandas writes an empty one as "nan"."""
    return "" if text.lower() == "nan" else text


def _rotations(question: Question) -> Iterator[Question]:
    options, answer = question.options, question.answer
    for shift in range(len(options)):
        yield replace(
            question,
            id=str(int(question.id) + shift * ROTATION),
            options=options[shift:] + options[:shift],
            answer=answer and LETTERS[(LETTERS.index(answer) - shift) % len(options)],
        )


def _entries(model: type[Any], rows: Iterable[Row], root: Path, *args: str) -> Iterator[Entry]:
    """The entries of rows; `args` are passed to the model."""
    for values, where in rows:
        row = validate(model.model_validate, values, where)
        with _named(where):
            names, fields = row.entry(*args)
            question = Question(image=None, **fields)
        files = [inside(root, name, where) for name in names]
        # The first file that is there, else the first of all.
        image = next((file for file in files if file.is_file()), files[0] if files else None)
        yield question, image


def _one_file(
    model: type[Any], file: Path, rows: Callable[[bytes, Path], Iterator[Row]]
) -> QuestionDataset:
    """The questions of a file that lies beside its images."""
    data = read_bytes(file)
    entries = _entries(model, rows(data, file), file.parent)
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """A fault of a question begins with `where`."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _json_lines(data: bytes, file: Path) -> Iterator[Row]:
    """Each line that is not blank."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            where = f"{file}: line {number}"
            yield parse_json(line, where), where


def _json_list(data: bytes, file: Path) -> Iterator[Row]:
    """The entries of a JSON list."""
    rows = parse_json(data, str(file))
    if not isinstance(rows, list):
        raise BadInput(f"{file}: expected a list, found {type(rows).__name__}")
    return ((row, f"{file}: entry {number}") for number, row in enumerate(rows))
