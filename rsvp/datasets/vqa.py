"""Questions about images: V*, HR-Bench, POPE, MMVP, HallusionBench and MMBench.

Each reader takes the benchmark's folder (or its file) and gives its questions in the file's order.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsvp.datasets import _files as files
from rsvp.datasets._files import inside
from rsvp.datasets._tables import Table, open_table
from rsvp.errors import BadInput

YES, NO = "yes", "no"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
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
        group: the keys of the groups that only count together; which, depends on the benchmark.
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


Picture = Path | Callable[[], bytes] | None
Entry = tuple[Question, Picture]


class QuestionDataset:
    """The questions of a benchmark.

    Attributes:
        digest: SHA-256 of the questions' files.
        questions: all of them, without their images.
    """

    def __init__(self, entries: Iterable[Entry], digest: str, where: str | Path) -> None:
        """Keep the entries.

        Raises:
            BadInput: there are none, an id comes twice, or an image file is missing.
        """
        self.digest = digest
        found = list(entries)
        if not found:
            raise BadInput(f"{where}: no questions")
        self.questions: Sequence[Question] = [question for question, _ in found]
        self._pictures = [picture for _, picture in found]
        files.check_unique((one.id for one in self.questions), where)
        for one, picture in found:
            if isinstance(picture, Path) and not picture.is_file():
                raise BadInput(f"{where}: {one.id}: no such image file: {picture}")

    def __len__(self) -> int:
        return len(self.questions)

    def sample_id(self, index: int) -> str:
        """The id of a question."""
        return self.questions[index].id

    def __getitem__(self, index: int) -> Question:
        picture = self._pictures[index]
        image = picture() if callable(picture) else picture
        return replace(self.questions[index], image=image)


def vstar(folder: str | Path) -> QuestionDataset:
    """V*Bench: ``test_questions.jsonl``, else ``<kind>/*.json`` beside the images.

    In the single files the first option is the right one; the options are shuffled, by the id.

    Raises:
        BadInput: a file or an image is missing or broken.
    """
    root = Path(folder)
    listed = root / "test_questions.jsonl"
    if listed.is_file():
        data = files.read_bytes(listed)
        lines = _json_lines(data, listed)
        entries = [_listed_vstar(entry, root, where) for entry, where in lines]
        return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), listed)
    found = sorted(root.glob("*/*.json"))
    texts = [files.read_bytes(file) for file in found]
    names = [file.relative_to(root).with_suffix("").as_posix() for file in found]
    digest = hashlib.sha256()
    for name, text in zip(names, texts, strict=True):
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    entries = [_single_vstar(*one) for one in zip(found, names, texts, strict=True)]
    return QuestionDataset(entries, digest.hexdigest(), root)


def hrbench(folder: str | Path) -> QuestionDataset:
    """HR-Bench 4K or 8K: a TSV or Parquet file; kind is single or cross, group the rotation.

    Raises:
        BadInput: the file is missing or broken, or there are several.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    table = open_table(Path(folder))
    rotations = table.texts("cycle_category") if "cycle_category" in table.columns else None
    return QuestionDataset(
        _choices(table, "category", lambda row, _: (rotations[row] if rotations else "0",)),
        table.digest,
        table.file,
    )


def mmbench(folder: str | Path) -> QuestionDataset:
    """MMBench: a TSV or Parquet file; group is the question that its rotations share.

    A file without rotations gets them: in the k-th the options are moved k places to the left.

    Raises:
        BadInput: the file is missing or broken, there are several, or an index is not a number.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    table = open_table(Path(folder))

    def base(_: int, index: str) -> tuple[str]:
        if not re.fullmatch("[0-9]{1,12}", index):
            raise BadInput(f"{table.file}: the index {index!r} is not a whole number")
        return (str(int(index) % ROTATION),)

    entries = list(_choices(table, "category", base))
    if all(int(question.id) < ROTATION for question, _ in entries):
        entries = [(turned, p) for question, p in entries for turned in _rotations(question)]
    return QuestionDataset(entries, table.digest, table.file)


def pope(folder: str | Path) -> QuestionDataset:
    """POPE: ``*pope_<kind>.json`` with a JSON object a line, images beside or in ``val2014``.

    An id is the question_id, after ``<file>/`` where there are several files.

    Raises:
        BadInput: a file or an image is missing or broken.
    """
    root = Path(folder)
    found = [root] if root.is_file() else sorted(root.glob("*pope_*.json*"))
    root = root.parent if root.is_file() else root
    digest, entries = hashlib.sha256(), []
    for file in found:
        data = files.read_bytes(file)
        digest.update(f"{file.name}\0{len(data)}\0".encode() + data)
        prefix = f"{file.stem}/" if len(found) > 1 else ""
        for entry, where in _json_lines(data, file):
            kind = file.stem.rpartition("pope_")[2]
            entries.append(_pope(entry, root, prefix, kind, where))
    return QuestionDataset(entries, digest.hexdigest(), root)


def mmvp(folder: str | Path) -> QuestionDataset:
    """MMVP: ``Questions.csv`` and ``MMVP Images/<index>.jpg``; group is the pair.

    Raises:
        BadInput: a file or an image is missing or broken.
    """
    root = Path(folder)
    file = root / "Questions.csv"
    data = files.read_bytes(file)
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: broken table: {error}") from error
    entries = [_mmvp(row, root, f"{file}: row {n}") for n, row in enumerate(rows)]
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


def hallusionbench(folder: str | Path) -> QuestionDataset:
    """HallusionBench: ``HallusionBench.json`` and the images, there or in ``hallusion_bench``.

    Kind is VD or VS. Group is (figure, question); the figure is "" where there is none to see.

    Raises:
        BadInput: a file or an image is missing or broken.
    """
    root = Path(folder)
    file = root / "HallusionBench.json"
    data = files.read_bytes(file)
    document = files.parse_json(data, str(file))
    if not isinstance(document, list):
        raise BadInput(f"{file}: expected a list, found {type(document).__name__}")
    entries = [_hallusion(entry, root, f"{file}: entry {n}") for n, entry in enumerate(document)]
    return QuestionDataset(entries, hashlib.sha256(data).hexdigest(), file)


def _question(where: str, **values: Any) -> Question:
    """A question without its image; its faults with the file."""
    try:
        return Question(image=None, **values)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _listed_vstar(entry: object, root: Path, where: str) -> Entry:
    image, text = (files.field(entry, name, str, where) for name in ("image", "text"))
    picture = inside(root, image, where)
    options = re.findall(r"^\(([A-Z])\) *(.*)$", text, re.MULTILINE)
    if [letter for letter, _ in options] != list(LETTERS[: len(options)]) or not options:
        raise BadInput(f"{where}: the options are not (A), (B), …")
    question = _question(
        where,
        id=Path(image).with_suffix("").as_posix(),
        question=text.partition("\n(A)")[0].strip(),
        options=tuple(option.strip() for _, option in options),
        answer=files.field(entry, "label", str, where),
        kind=files.field(entry, "category", str, where),
    )
    return question, picture


def _single_vstar(file: Path, name: str, data: bytes) -> Entry:
    where = str(file)
    entry = files.parse_json(data, where)
    options = files.field(entry, "options", list, where)
    if not 2 <= len(options) <= len(LETTERS) or not all(isinstance(o, str) for o in options):
        raise BadInput(f"{where}: the options are at least two texts")
    order = list(range(len(options)))
    random.Random(name).shuffle(order)
    question = _question(
        where,
        id=name,
        question=files.field(entry, "question", str, where).strip(),
        options=tuple(options[place] for place in order),
        answer=LETTERS[order.index(0)],
        kind=file.parent.name,
    )
    pictures = [file.with_suffix(s) for s in (".jpg", ".jpeg", ".png", ".JPG", ".webp")]
    return question, next((p for p in pictures if p.is_file()), pictures[0])


def _choices(
    table: Table, kind: str, group: Callable[[int, str], tuple[str, ...]]
) -> Iterable[Entry]:
    """The rows of a table of multiple-choice questions."""
    names = [name for name in LETTERS if name in table.columns]
    columns = [table.texts(name) for name in names]
    indices, questions = table.texts("index"), table.texts("question")
    hints = table.texts("hint") if "hint" in table.columns else [""] * len(table)
    answers = table.texts("answer") if "answer" in table.columns else [""] * len(table)
    kinds = table.texts(kind)
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
            group=group(row, index),
        )
        yield question, lambda row=row: table.image(row)  # type: ignore[misc]


def _rotations(question: Question) -> Iterable[Question]:
    n = len(question.options)
    for turn in range(n):
        place = None if question.answer is None else LETTERS.index(question.answer)
        yield replace(
            question,
            id=str(int(question.id) + turn * ROTATION),
            options=question.options[turn:] + question.options[:turn],
            answer=None if place is None else LETTERS[(place - turn) % n],
        )


def _pope(entry: object, root: Path, prefix: str, kind: str, where: str) -> Entry:
    image = files.field(entry, "image", str, where)
    question = _question(
        where,
        id=f"{prefix}{_word(entry, 'question_id', where)}",
        question=files.field(entry, "text", str, where),
        options=(),
        answer=files.field(entry, "label", str, where),
        kind=kind,
    )
    places = [inside(root, name + image, where) for name in ("", "val2014/", "images/")]
    return question, next((p for p in places if p.is_file()), places[0])


def _mmvp(row: dict[str, str], root: Path, where: str) -> Entry:
    index, text, answer = (
        files.field(row, name, str, where).strip()
        for name in ("Index", "Options", "Correct Answer")
    )
    if not re.fullmatch("[0-9]{1,9}", index):
        raise BadInput(f"{where}: the index {index!r} is not a whole number")
    _, *parts = re.split(r"\(([a-z])\)", text)
    letters, options = "".join(parts[::2]), tuple(part.strip() for part in parts[1::2])
    if not letters or not LETTERS.lower().startswith(letters):
        raise BadInput(f"{where}: the options are not (a), (b), …")
    question = _question(
        where,
        id=index,
        question=files.field(row, "Question", str, where).strip(),
        options=options,
        answer=answer.strip("() ").upper(),
        group=(str((int(index) + 1) // 2),),
    )
    places = [root / name / f"{index}.jpg" for name in ("MMVP Images", "images", "")]
    return question, next((p for p in places if p.is_file()), places[0])


def _hallusion(entry: object, root: Path, where: str) -> Entry:
    names = ("category", "subcategory", "set_id", "figure_id", "question_id", "gt_answer")
    category, subcategory, group, figure, number, answer = (_word(entry, n, where) for n in names)
    if answer not in ("0", "1"):
        raise BadInput(f"{where}: 'gt_answer' is 0 or 1, found {answer!r}")
    key = f"{category}_{subcategory}_{group}"
    # VS questions are asked without their figure first, VD's first figure is the original one.
    unseen = category == "VS" and figure == "0"
    question = _question(
        where,
        id=f"{key}_{figure}_{number}",
        question=files.field(entry, "question", str, where),
        options=(),
        answer=YES if answer == "1" else NO,
        kind=category,
        group=("" if unseen else f"{key}_{figure}", f"{key}_{number}"),
    )
    if _word(entry, "visual_input", where) == "0":
        return question, None
    name = f"{category}/{subcategory}/{group}_{figure}.png"
    places = [inside(root, top + name, where) for top in ("", "hallusion_bench/")]
    return question, next((p for p in places if p.is_file()), places[0])


def _word(entry: object, name: str, where: str) -> str:
    """A field that some versions of the file hold as text, others as a number."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise BadInput(f"{where}: {name!r} is missing")
    return str(value)


def _json_lines(data: bytes, file: Path) -> Iterable[tuple[object, str]]:
    """The object of each line that is not blank, and where it stands."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            where = f"{file}: line {number}"
            yield files.parse_json(line, where), where
