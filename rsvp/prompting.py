"""Find, render and hash the files of `prompts/`.

A prompt is `prompts/<profile>/<name>.txt`, plain text. Loading it replaces ``<<file.section>>`` by
that section of `prompts/<profile>/_partials/<file>.txt` (a section begins with ``## name``), so
that a rule or an example of several prompts is written once. A profile's `_exists/` holds other
texts of some of these sections: with them, the same prompts make a second profile,
``<profile>-exists``, for queries whose target is known to be in the image. Rendering fills in
`$variables` (``$$`` is a dollar sign) in a single pass, so that a query with `$` or braces stays
data.

The full profile's prompts use these variables:

| variable | from | what |
|---|---|---|
| query | the caller | the query, or the question and its choices; unchanged, in any language |
| query_code | `render` | a code that the query does not contain, for the lines around it |
| width, height | the strategy | the size in pixels of the image that was sent |
| rows, columns | the grid strategy | how many bands are drawn |
| numbers | verification | which targets are asked about, e.g. targets 1 and 3 |
| marks_range | the marks strategy | which numbers are drawn, e.g. 1 to 12 |
| frame, box_key, box_example, example_* | `variables_for_frame` | how boxes are written |
| point_frame, point_example, point_* | `variables_for_frame` | how points are written |
| problem | the repeated request | one line: why the last reply could not be read |
| number, things, looks_left | `rsvp.answer` | which look, at what; how many are left |

The embedded reasoner was trained on the texts of the compact profile. They use `query` alone, but
for `question` (the user's) and `choices` (from `choice_list`) of look and answer.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsvp.errors import BadInput

_INCLUDE = re.compile(r"<<([a-z0-9.-]+)>>")
_SECTION = re.compile(r"^## (\S+)\n", re.MULTILINE)

# The objects of the worked examples as fractions of the image: x0, y0, x1, y1, or x, y.
_EXAMPLES: dict[str, tuple[float, ...]] = {
    "example_kettle": (0.06, 0.24, 0.31, 0.62),
    "example_white_mug": (0.46, 0.38, 0.61, 0.61),
    "example_blue_mug": (0.71, 0.39, 0.86, 0.63),
    "point_kettle": (0.17, 0.45),
    "point_white_mug": (0.52, 0.50),
    "point_white_mug_top": (0.53, 0.41),
    "point_blue_mug": (0.77, 0.52),
    "point_table": (0.65, 0.68),
}
_SCALES: dict[str, float] = {
    "0-1000": 1000, "0-1000-yxyx": 1000, "0-1024-yxyx": 1024, "0-1": 1, "percent": 100,
}  # fmt: skip
EXISTS = "-exists"  # ends the name of a profile for queries whose target is in the image


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's template.

    Attributes:
        name: e.g. ``full/boxes.cot``.
        text: the template, without the file's last newline.
        sha256: hex digest of the text's UTF-8 bytes.
    """

    name: str
    text: str
    sha256: str


def load(name: str) -> Prompt:
    """The template called `name`.

    Raises:
        BadInput: there is none; the message names those that there are.
    """
    text = _texts().get(name)
    if text is None:
        raise BadInput(f"there is no prompt {name!r}; choose one of {', '.join(names())}")
    return Prompt(name, text, hashlib.sha256(text.encode()).hexdigest())


def names() -> list[str]:
    """The names of all prompts, sorted."""
    return sorted(_texts())


def exists(name: str) -> bool:
    """Is there such a prompt? A profile may do without `system`."""
    return name in _texts()


def existing(profile: str, *names: str) -> tuple[str, ...]:
    """Those of the prompts ``profile/name`` that there are."""
    return tuple(filter(exists, (f"{profile}/{name}" for name in names)))


def render(name: str, /, **variables: object) -> str:
    """The prompt called `name` with its `$variables` filled in; variables it lacks are ignored.

    Raises:
        BadInput: no such prompt, or one of its variables is missing; the message names it.
    """
    values = {key: str(value) for key, value in variables.items()}
    if "query" in values:
        values.setdefault("query_code", query_code(values["query"]))
    return _filled(load(name).text, values, name)


def digest(texts: Iterable[str]) -> str:
    """sha256 (hex) of several prompt texts in order; sensitive to where one ends."""
    total = hashlib.sha256()
    for text in texts:
        total.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return total.hexdigest()


def query_code(query: str) -> str:
    """Eight hex digits that `query` does not contain, always the same for the same query.

    The lines around the query carry them, so that no query can imitate its own closing line.
    """
    code = hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    while code in query:
        code = hashlib.sha256(code.encode()).hexdigest()[:8]
    return code


def choice_list(choices: Sequence[str]) -> str:
    """The choices of a question as a prompt lists them: "red, blue or green"; empty without."""
    *others, last = choices or ("",)
    return f"{', '.join(others)} or {last}" if others else last


def frame_kinds() -> list[str]:
    """The coordinate frames that `prompts/frames.txt` describes."""
    return [key.removeprefix("box.") for key in _frame_sentences() if key.startswith("box.")]


def variables_for_frame(kind: str, width: int, height: int, box_key: str = "box") -> dict[str, str]:
    """The variables that explain to a model how to write boxes and points.

    Args:
        kind: a coordinate frame, one of `frame_kinds`.
        width, height: pixels of the image that is sent.
        box_key: the JSON key under which the model writes a box.

    Returns:
        `frame` and `point_frame` (a sentence each), `box_example` and `point_example` (the order
        of the numbers), and the boxes and points of the worked examples in the same frame, so that
        rule and example agree.

    Raises:
        BadInput: the frame is unknown.
    """
    if kind not in frame_kinds():
        known = ", ".join(frame_kinds())
        raise BadInput(f"unknown coordinate frame {kind!r}; choose one of {known}")
    size = {"width": str(width), "height": str(height)}
    box, point = (_frame_sentences()[f"{what}.{kind}"] for what in ("box", "point"))
    y_first = kind.endswith("yxyx")
    return {
        **size,
        "frame": _filled(box, size, f"frame {kind}"),
        "box_key": box_key,
        "box_example": "[y0, x0, y1, x1]" if y_first else "[x0, y0, x1, y1]",
        "point_frame": _filled(point, size, f"points in frame {kind}"),
        "point_example": "[y, x]" if y_first else "[x, y]",
        **{name: _written(xy, kind, width, height) for name, xy in _EXAMPLES.items()},
    }


def example_numbers(name: str, variables: Mapping[str, str]) -> frozenset[tuple[float, ...]]:
    """The boxes and points of the worked examples in a prompt, as a reply would repeat them."""
    text = load(name).text
    return frozenset(
        tuple(map(float, json.loads(variables[example])))
        for example in _EXAMPLES
        if f"${example}" in text
    )


def _written(numbers: Sequence[float], kind: str, width: int, height: int) -> str:
    """An example box or point, x before y, as the model should write it."""
    scales = (_SCALES.get(kind, width), _SCALES.get(kind, height))
    values = [number * scales[i % 2] for i, number in enumerate(numbers)]
    if kind.endswith("yxyx"):
        values = [values[i ^ 1] for i in range(len(values))]
    decimals = 3 if kind == "0-1" else int(kind == "percent" and len(values) == 2)
    return "[" + ", ".join(f"{value:.{decimals}f}" for value in values) + "]"


def _filled(text: str, values: Mapping[str, str], name: str) -> str:
    try:
        return string.Template(text).substitute(values)
    except KeyError as error:
        raise BadInput(f"the prompt {name} needs the variable ${error.args[0]}") from None
    except ValueError as error:
        raise BadInput(f"the prompt {name} is not a template: {error}") from None


@functools.cache
def _texts() -> dict[str, str]:
    """All templates by name, partials included; read once, so that no run sees them change."""
    texts: dict[str, str] = {}
    for profile in sorted(path for path in _folder().iterdir() if path.is_dir()):
        partials, others = (_partials(profile / name) for name in ("_partials", "_exists"))
        for path in sorted(profile.glob("*.txt")):
            prompt = path.name.removesuffix(".txt")
            text = path.read_text(encoding="utf-8").removesuffix("\n")
            name = f"{profile.name}/{prompt}"
            texts[name] = _expanded(text, partials, name)
            if others:
                name = f"{profile.name}{EXISTS}/{prompt}"
                texts[name] = _expanded(text, {**partials, **others}, name)
    return texts


def _partials(folder: Path) -> dict[str, str]:
    """The sections of a folder's files, by ``file.section``."""
    return {
        f"{path.stem}.{section}": text
        for path in folder.glob("*.txt")
        for section, text in _sections(path).items()
    }


def _expanded(text: str, partials: Mapping[str, str], name: str) -> str:
    """The text with its partials, and theirs; one that includes itself counts as unknown."""

    def included(found: re.Match[str]) -> str:
        if found[1] not in partials:
            raise BadInput(f"the prompt {name} includes {found[0]}, which is not in _partials/")
        others = {key: value for key, value in partials.items() if key != found[1]}
        return _expanded(partials[found[1]], others, name)

    return _INCLUDE.sub(included, text)


def _sections(path: Path) -> dict[str, str]:
    """The sections of a file by name, without the blank lines around them."""
    _, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    return {name: text.strip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


@functools.cache
def _frame_sentences() -> dict[str, str]:
    """How boxes and points are written, by ``box.KIND`` and ``point.KIND``."""
    return _sections(_folder() / "frames.txt")


def _folder() -> Path:
    """Inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_prompts", here.parent / "prompts"):
        if folder.is_dir():
            return folder
    raise BadInput(f"the prompts are missing from this installation of rsvp: {here / '_prompts'}")
