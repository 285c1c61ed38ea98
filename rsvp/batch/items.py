"""What a batch is asked: images of a folder, lines of JSON, or a list of paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from rsvp.errors import BadInput
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.request import Request, make_request
from rsvp.types import Image

STDIN = "-"
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".avif", ".heif", ".heic", ".hif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".ico",
)  # fmt: skip
MAX_ID = 1000  # characters


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One query or question on one image; see `rsvp.request.make_request` for the rest.

    Attributes:
        id: unique in the batch, the same in every run.
        image: the path of its file.
    """

    id: str
    image: str
    query: str = ""
    boxes: tuple[tuple[float, ...], ...] | None = None
    points: tuple[tuple[float, ...], ...] | None = None
    labels: tuple[str, ...] | None = None
    within: tuple[float, ...] | None = None
    exclude: tuple[tuple[float, ...], ...] | None = None
    choices: tuple[str, ...] | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked beside the image: the query, and what else there is, as JSON has it."""
        values = asdict(self)
        del values["id"], values["image"]
        return {name: _as_lists(value) for name, value in values.items() if value is not None}

    def request(self, image: Image) -> Request:
        """What is asked of its image, without the choices; BadInput where it cannot be used."""
        asked = self.asked
        asked.pop("choices", None)
        return make_request(image, **asked)

    @property
    def has_hints(self) -> bool:
        return self.within is not None or bool(self.exclude)


def _as_lists(value: Any) -> Any:
    return [_as_lists(one) for one in value] if isinstance(value, tuple) else value


_Xyxy = Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
_Click = Annotated[tuple[float, ...], Field(min_length=2, max_length=3)]


class BatchLine(BaseModel):
    """A line of a batch's JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str = Field(min_length=1, description="A path, relative to the folder of the JSON file.")
    id: str | None = Field(
        default=None, min_length=1, description="Unique; by default the path of the image."
    )
    query: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        validation_alias=AliasChoices("query", "question"),
        description="One or several; by default those of --query. `question` is another name.",
    )
    choices: tuple[str, ...] | None = Field(
        default=None, description="What the answer to a question is chosen from."
    )
    boxes: tuple[_Xyxy, ...] | None = Field(default=None, description="xyxy in pixels.")
    points: tuple[_Click, ...] | None = Field(
        default=None, description="(x, y) in pixels, or (x, y, 0) for 'not this'."
    )
    labels: tuple[str, ...] | None = Field(default=None, description="What the boxes show.")
    within: _Xyxy | None = Field(default=None, description="A hint: only what lies in this box.")
    exclude: tuple[_Click, ...] | None = Field(default=None, description="A hint: not these.")

    def items(self, folder: Path, queries: Sequence[str]) -> Iterator[BatchItem]:
        own = [self.query] if isinstance(self.query, str) else self.query
        prompted = self.boxes or self.points
        more = self.model_dump(exclude={"id", "image", "query"})
        image = os.path.join("" if folder == Path() else folder, self.image)
        texts = own or list(queries) or ([""] if prompted else [])
        yield from (replace(item, **more) for item in _queried(self.id or self.image, image, texts))


def read_items(
    source: str, queries: Sequence[str] = (), *, stdin: bytes = b"", skip: Path | None = None
) -> list[BatchItem]:
    """The items of a folder, a file or standard input.

    Args:
        source: a folder, whose images are found in all folders below it but hidden ones; a file of
            lines; or ``-``, lines from `stdin`. A line is a JSON object (`BatchLine`) or a path.
        queries: of each image; lines that bring their own need none.
        skip: a folder inside the folder that holds no input, e.g. the one for the results.

    Raises:
        BadInput: there is no image, a line cannot be read, an item has no query, an id is there
            twice.
    """
    if any(not query.strip() for query in queries):
        raise BadInput("a query is empty: say what to look for")
    if source != STDIN and Path(source).is_dir():
        found = (
            item
            for name in images_in(Path(source), skip)
            for item in _queried(name, os.path.join(source, name), queries)
        )
        where = source
        if not queries:
            raise BadInput("a folder of images needs a --query")
    else:
        where = "standard input" if source == STDIN else source
        folder = Path() if source == STDIN else Path(source).parent
        data = stdin if source == STDIN else read_bytes(Path(source))
        found = (item for line in _lines(data, where) for item in _read(line, folder, queries))
    items = list(found)
    if not items:
        raise BadInput(f"{where} holds no images")
    _check_ids(items, where)
    return items


def images_in(folder: Path, skip: Path | None = None) -> Iterator[str]:
    """The images below a folder, sorted: their paths relative to it, with ``/``."""
    inner = skip.resolve() if skip is not None else None
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (inner is None or Path(here, name).resolve() != inner)
        )
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(here, name).relative_to(folder).as_posix()


def _queried(name: str, image: str, queries: Sequence[str]) -> Iterator[BatchItem]:
    """One item a query; several have numbers in their ids."""
    for number, query in enumerate(queries, start=1):
        yield BatchItem(name if len(queries) == 1 else f"{name}#{number}", image, query)


_Line = tuple[str, str]  # its place for messages, and its text


def _lines(data: bytes, where: str) -> Iterator[_Line]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(
            f"{where} is neither a folder nor lines of text; for one image: rsvp segment --image"
        ) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{where}: line {number}", line.strip()


def _read(line: _Line, folder: Path, queries: Sequence[str]) -> Iterable[BatchItem]:
    where, text = line
    if text.startswith("{"):
        read = validate(BatchLine.model_validate, parse_json(text, where), where)
    else:
        read = BatchLine(image=text)
    items = list(read.items(folder, queries))
    if not items or not all(item.query.strip() or item.boxes or item.points for item in items):
        raise BadInput(f"{where}: there is no query; give one there or by --query")
    return items


def _check_ids(items: Sequence[BatchItem], where: str) -> None:
    seen: set[str] = set()
    for item in items:
        if len(item.id) > MAX_ID:
            raise BadInput(f"{where}: the id {item.id[:40]!r}… has more than {MAX_ID:,} characters")
        if item.id in seen:
            raise BadInput(f"{where}: {item.id!r} is there twice; give each line an id of its own")
        seen.add(item.id)
