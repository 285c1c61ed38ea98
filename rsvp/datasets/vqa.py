"""Questions about images: V*, HR-Bench, POPE, MMVP, HallusionBench and MMBench.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

from rsvp.datasets import AnnotationModel, BaseDataset, inside
from rsvp.datasets.tables import ParquetTable, TsvTable, open_table
from rsvp.errors import BadInput
from rsvp.platform.files import parse_json, read_bytes, validate

YES, NO = "yes", "no"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IMAGE_TOPS = ("", "val2014/", "images/")  # POPE: where the images may be
HALLUSION_TOPS = ("", "hallusion_bench/")
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
        group: the keys of the groups that only count together; their meaning depends on the
            benchmark.
    """

    id: str
    image: Path | bytes | None = field(repr=False)
    question: str
    options: tuple[str, ...]
    answer: str | None
    kind: str = "all"
    group: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = tuple(LETTERS[: len(self.options)]) or (YES, NO)
        if self.answer is not None and self.answer not in allowed:
            raise BadInput(f"{self.id}: the answer is one of {allowed}, found {self.answer!r}")


QuestionImage = Path | Callable[[], bytes] | None
Entry = tuple[Question, QuestionImage]
T = TypeVar("T", bound=AnnotationModel)


class QuestionDataset(BaseDataset):
    """The questions of a benchmark.

    Attributes:
        digest: SHA-256 of the questions' files.
        questions: all of them, without their images.
    """

    def __init__(self, entries: Iterable[Entry], digest: str, file: Path) -> None:
        """
        Raises:
            BadInput: there are no questions, or an id comes twice.
        """
        found = list(entries)
        self.questions = [question for question, _ in found]
        self._images = [image for _, image in found]
        super().__init__(file, digest, [question.id for question in self.questions])

    def _image_file(self, index: int) -> Path | None:
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


class _VstarFile(AnnotationModel):
    # ``<kind>/<name>.json``; the first option is the right one
    question: str
    options: Annotated[list[str], Field(min_length=2, max_length=len(LETTERS))]


class _PopeLine(AnnotationModel):
    # A line of ``coco_pope_<kind>.json``
    question_id: NumberText
    image: str
    text: str
    label: str


class _MmvpRow(AnnotationModel):
    # A row of ``Questions.csv``; the options are (a), (b), … in one text
    model_config = ConfigDict(str_strip_whitespace=True)

    index: Annotated[str, Field(alias="Index", pattern="^[0-9]{1,9}$")]
    question: Annotated[str, Field(alias="Question")]
    options: Annotated[str, Field(alias="Options")]
    answer: Annotated[str, Field(alias="Correct Answer")]


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


def vstar(folder: str | Path) -> QuestionDataset:
    """V*Bench: ``test_questions.jsonl``, else ``<kind>/*.json`` beside the images.

    In the single files the first option is the right one; the options are shuffled, by the id.
    """
    root = Path(folder)
    listed = root / "test_questions.jsonl"
    if listed.is_file():
        data = read_bytes(listed)
        lines = _json_lines(data, listed, _VstarLine)
        entries = [_listed_vstar(row, where, root) for row, where in lines]
        return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), listed)
    found = {
        file.relative_to(root).with_suffix("").as_posix(): (file, read_bytes(file))
        for file in sorted(root.glob("*/*.json"))
    }
    digest = _digest((name, data) for name, (_, data) in found.items())
    entries = [_single_vstar(name, *one) for name, one in found.items()]
    return QuestionDataset(entries, digest, root)


def hrbench(folder: str | Path) -> QuestionDataset:
    """HR-Bench 4K or 8K: a TSV or Parquet file; kind is single or cross, group the rotation."""
    table = open_table(Path(folder))
    rotations = _optional(table, "cycle_category", "0")
    entries = _choices(table, [(rotation,) for rotation in rotations])
    return QuestionDataset(entries, table.digest, table.file)


def mmbench(folder: str | Path) -> QuestionDataset:
    """MMBench: a TSV or Parquet file; group is the question that its rotations share.

    A file without rotations gets them: in the k-th the options are moved k places to the left.
    """
    table = open_table(Path(folder))
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
    folder = root.parent if root.is_file() else root
    found = {file: read_bytes(file) for file in files}
    entries: list[Entry] = []
    for file, data in found.items():
        prefix = f"{file.stem}/" if len(found) > 1 else ""
        for row, where in _json_lines(data, file, _PopeLine):
            question = _question(
                where,
                id=f"{prefix}{row.question_id}",
                question=row.text,
                options=(),
                answer=row.label,
                kind=file.stem.rpartition("pope_")[2],
            )
            images = (inside(folder, f"{top}{row.image}", where) for top in IMAGE_TOPS)
            entries.append((question, _first_file(images)))
    digest = _digest((file.name, data) for file, data in found.items())
    return QuestionDataset(entries, digest, root)


def mmvp(folder: str | Path) -> QuestionDataset:
    """MMVP: ``Questions.csv`` and ``MMVP Images/<index>.jpg``; group is the pair."""
    root = Path(folder)
    file = root / "Questions.csv"
    data = read_bytes(file)
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: broken table: {error}") from error
    entries = [_mmvp(row, root, f"{file}: row {n}") for n, row in enumerate(rows)]
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


def hallusionbench(folder: str | Path) -> QuestionDataset:
    """HallusionBench: ``HallusionBench.json`` and the images, there or in ``hallusion_bench``.

    Kind is VD or VS. Group is (figure, question); the figure is "" where there is none to see.
    """
    root = Path(folder)
    file = root / "HallusionBench.json"
    data = read_bytes(file)
    document = parse_json(data, str(file))
    if not isinstance(document, list):
        raise BadInput(f"{file}: expected a list, found {type(document).__name__}")
    entries = [_hallusion(entry, root, f"{file}: entry {n}") for n, entry in enumerate(document)]
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


def _listed_vstar(row: _VstarLine, where: str, root: Path) -> Entry:
    options = re.findall(r"^\(([A-Z])\) *(.*)$", row.text, re.MULTILINE)
    if not options or [letter for letter, _ in options] != list(LETTERS[: len(options)]):
        raise BadInput(f"{where}: the options are not (A), (B), …")
    image = inside(root, row.image, where)
    question = _question(
        where,
        id=Path(row.image).with_suffix("").as_posix(),
        question=row.text.partition("\n(A)")[0].strip(),
        options=tuple(option.strip() for _, option in options),
        answer=row.label,
        kind=row.category,
    )
    return question, image


def _single_vstar(name: str, file: Path, data: bytes) -> Entry:
    row = validate(_VstarFile.model_validate, parse_json(data, str(file)), str(file))
    order = list(range(len(row.options)))
    random.Random(name).shuffle(order)
    question = _question(
        str(file),
        id=name,
        question=row.question.strip(),
        options=tuple(row.options[place] for place in order),
        answer=LETTERS[order.index(0)],
        kind=file.parent.name,
    )
    suffixes = (".jpg", ".jpeg", ".png", ".JPG", ".webp")
    return question, _first_file(file.with_suffix(suffix) for suffix in suffixes)


def _choices(table: ParquetTable | TsvTable, groups: list[tuple[str, ...]]) -> Iterator[Entry]:
    """The rows of a table of multiple-choice questions."""
    columns = [table.texts(name) for name in LETTERS if name in table.columns]
    indices, questions, kinds = (table.texts(n) for n in ("index", "question", "category"))
    hints, answers = _optional(table, "hint"), _optional(table, "answer")
    for row, index in enumerate(indices):
        options = [column[row] for column in columns]
        while options and not options[-1]:
            options.pop()
        if len(options) < 2:
            raise BadInput(f"{table.file}: {index}: fewer than two options")
        question = _question(
            str(table.file),
            id=index,
            question="\n".join(filter(None, (hints[row], questions[row]))),
            options=tuple(options),
            answer=answers[row] or None,
            kind=kinds[row],
            group=groups[row],
        )
        yield question, partial(table.image, row)


def _optional(table: ParquetTable | TsvTable, column: str, default: str = "") -> list[str]:
    return table.texts(column) if column in table.columns else [default] * len(table)


def _rotations(question: Question) -> Iterator[Question]:
    n = len(question.options)
    for shift in range(n):
        place = None if question.answer is None else LETTERS.index(question.answer)
        yield replace(
            question,
            id=str(int(question.id) + shift * ROTATION),
            options=question.options[shift:] + question.options[:shift],
            answer=None if place is None else LETTERS[(place - shift) % n],
        )


def _mmvp(values: object, root: Path, where: str) -> Entry:
    row = validate(_MmvpRow.model_validate, values, where)
    _, *parts = re.split(r"\(([a-z])\)", row.options)
    letters, options = "".join(parts[::2]), tuple(part.strip() for part in parts[1::2])
    if not letters or not LETTERS.lower().startswith(letters):
        raise BadInput(f"{where}: the options are not (a), (b), …")
    question = _question(
        where,
        id=row.index,
        question=row.question,
        options=options,
        answer=row.answer.strip("() ").upper(),
        group=(str((int(row.index) + 1) // 2),),
    )
    folders = ("MMVP Images", "images", "")
    return question, _first_file(root / name / f"{row.index}.jpg" for name in folders)


def _hallusion(values: object, root: Path, where: str) -> Entry:
    row = validate(_HallusionEntry.model_validate, values, where)
    key = f"{row.category}_{row.subcategory}_{row.set_id}"
    # VS questions are asked without their figure first; VD's first figure is the original one.
    without_figure = row.category == "VS" and row.figure_id == "0"
    question = _question(
        where,
        id=f"{key}_{row.figure_id}_{row.question_id}",
        question=row.question,
        options=(),
        answer=YES if row.gt_answer == "1" else NO,
        kind=row.category,
        group=("" if without_figure else f"{key}_{row.figure_id}", f"{key}_{row.question_id}"),
    )
    if row.visual_input == "0":
        return question, None
    name = f"{row.category}/{row.subcategory}/{row.set_id}_{row.figure_id}.png"
    return question, _first_file(inside(root, f"{top}{name}", where) for top in HALLUSION_TOPS)


def _question(where: str, **values: Any) -> Question:
    """A question without its image; its faults with the file."""
    try:
        return Question(image=None, **values)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _first_file(candidates: Iterable[Path]) -> Path:
    """The first candidate that is there, else the first of all."""
    files = list(candidates)
    return next((file for file in files if file.is_file()), files[0])


def _json_lines(data: bytes, file: Path, model: type[T]) -> Iterator[tuple[T, str]]:
    """The row of each line that is not blank, and how errors name it."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            where = f"{file}: line {number}"
            yield validate(model.model_validate, parse_json(line, where), where), where


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the names and contents of several files."""
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()
