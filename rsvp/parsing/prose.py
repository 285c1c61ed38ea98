"""Answers that are no JSON: lines, tables, YAML, one sentence with one region, and denials.

All of it is read only where it leaves no doubt: the whole text has one form, it names nothing
twice, and no word takes it back. Everything else is no answer, so that the model is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rsvp.parsing import keys
from rsvp.parsing.lenient_json import Array, Node, Object, normalised
from rsvp.parsing.markup import MAX_REGIONS, entry, label_of
from rsvp.parsing.values import Unreadable, is_named_box, list_in

MAX_TEXT = 10_000  # no answer in prose is longer
_MAX_DENIAL = 600

_NUMBER = r"[-+]?[0-9]{1,6}(?:\.[0-9]{1,9})?"
_COMMA = r"\s{0,3}[,，\s]\s{0,3}"
_FOUR = rf"{_NUMBER}(?:{_COMMA}{_NUMBER}){{3}}"
_PAIR = rf"\(\s{{0,3}}{_NUMBER}{_COMMA}{_NUMBER}\s{{0,3}}\)"
_REGION = {
    "box": re.compile(
        rf"\[?{_PAIR}\s{{0,3}}(?:,|-|–|to|and)?\s{{0,3}}{_PAIR}\]?"
        rf"|\[\s{{0,3}}\[\s{{0,3}}{_FOUR}\s{{0,3}}\]\s{{0,3}}\]|[\[(<]\s{{0,3}}{_FOUR}\s{{0,3}}[\])>]"
    ),
    "points": re.compile(rf"[\[(]\s{{0,3}}{_NUMBER}{_COMMA}{_NUMBER}\s{{0,3}}[\])]"),
}
_LIST_WORD = re.compile(r"\b(?:to|and)\b|(?<=\))\s*[-–]")
_BULLET = re.compile(r"[ \t]*(?:[-*•+][ \t]+|[0-9]{1,3}[.)][ \t]+)?")
_FENCE_LINE = re.compile(r"[ \t]*```\w{0,20}[ \t]*")
_AFTER_REGION = re.compile(r"[\s.,;。*`$}]{0,10}")
_NUMBERS = (
    r"[0-9]{1,4}(?:\s{0,3}(?:,|，|-|–|to|through|and|&)(?:\s{0,3}and)?\s{0,3}[0-9]{1,4}){0,60}"
)
_ROWS = re.compile(rf"\brows?\b[\s:*]{{0,6}}({_NUMBERS})", re.IGNORECASE)
_COLUMNS = re.compile(rf"\bcol(?:umn)?s?\b[\s:*]{{0,6}}({_NUMBERS})", re.IGNORECASE)
_MARKS = re.compile(
    rf"(?:\b(?:marks?|numbers?|labels?|labell?ed|regions?|ids?|no\.)|#)[\s:#*\[]{{0,6}}({_NUMBERS})",
    re.IGNORECASE,
)
_MARKS_ALONE = re.compile(rf"[\s*\[(\"'`]{{0,6}}({_NUMBERS})[\s*\])\"'`.]{{0,6}}")
_DOUBT = re.compile(
    r"\b(?:no|not|none|never|if|unless|would|could|might|may|maybe|perhaps|possibly|probably"
    r"|example|e\.g|such as|instance|reference|instead|otherwise|closest|similar|unsure|uncertain"
    r"|size|resolution|dimensions?|width|height|cannot|suppose|sorry|between|either)\b|n['’]t\b|\?"
    r"|\by_?(?:min|0|1)\W{1,3}x_?(?:min|0|1)\b",  # an order that lists elsewhere may not have
    re.IGNORECASE,
)

_IN_IMAGE = (
    r"(?: (?:in|on|within) (?:the|this|that) (?:\w{1,12} )?(?:image|picture|photo\w{0,5}|scene))"
)
_THING = (
    r"(?: (?!doubt|question|need|clear|problem|issue|reason|way|longer|answer|image|picture|photo"
    r"|information|idea|point|sign|mark\b|other|more|else|better|guarantee|certain|one\b|single"
    r"|but\b|and\b|that\b|which\b|in\b|is\b|are\b|on\b|visible\b|present\b)[\w'’-]{1,30}){1,6}?"
)
_STATE = (
    r"(?: (?:is|are|was|were))?(?: (?:present|visible|found|shown|seen|there|detected|depicted"
    r"|to be seen|fits?|match(?:es)?))"
)
_DENIAL = re.compile(
    r"(?:(?:unfortunately|sorry|no)[,.]? )?(?:"
    r"there(?: (?:is|are|was|were) (?:no|not an?y?)| (?:is|are)n['’]t (?:an?|any)|['’]s no)"
    rf"(?: such)?{_THING}{_STATE}?{_IN_IMAGE}?"
    r"|there (?:is|are) none"
    r"|(?:the|this) (?:image|picture|photo|scene) (?:does not|doesn['’]t)"
    rf" (?:contain|show|have|include)(?: an?| any)?(?: such)?{_THING}"
    rf"|(?:the|an?){_THING} (?:is|are)(?: not|n['’]t) (?:present|visible|shown|found){_IN_IMAGE}?"
    rf"|i (?:do not|don['’]t|can ?not|can['’]t|could not|couldn['’]t) (?:see|find|locate|detect)"
    rf"(?: an?| any| the)?(?: such)?{_THING}{_IN_IMAGE}?"
    rf"|no(?: such| matching)?{_THING}(?:{_STATE}{_IN_IMAGE}?|{_IN_IMAGE})"
    r"|none of the \w{1,20} (?:fits?|match(?:es)?|is|are|shows?|appl(?:y|ies))"
    rf"(?:(?: an?| the)?{_THING})?)",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:none|nothing|no[ _]?(?:such )?(?:objects?|targets?|match(?:es)?|boxe?s?|marks?|one)"
    r"(?: (?:found|detected|present|match(?:es)?))?|not (?:present|found|visible|there)|absent"
    rf"){_IN_IMAGE}?",
    re.IGNORECASE,
)
_EMPTY = re.compile(r"(?:null|n/a|no|empty|\[\s*\])?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!]\s+|\n+|$")
_MORE = re.compile(r"[0-9\[\]{}|]|\b(?:but|however|although|though|except|yet)\b", re.I)
_VERSION = re.compile(
    r"\b(?:initial(?:ly)?|draft|refined|first guess|final|adjusted|updated|before|after|old|new"
    r"|options?|alternatives?|alternatively|candidates?|or)\b",
    re.IGNORECASE,
)
_PREFIX = re.compile(
    r"(?:so,? |thus,? )?(?:the |my )?(?:final )?answer(?: is)?\b\s{0,3}:?\s{0,3}", re.I
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correct(?:ion|ed)|revised|second thoughts?|mistake|oops)\b", re.IGNORECASE
)

_KEY_LINE = re.compile(
    r"([ \t]*)(-[ \t]+)?[\"'*]{0,2}(\w[\w -]{0,30})[\"'*]{0,2}[ \t]*[:=]([^\n]*)"
)
_NUMBER_LINE = re.compile(rf"[ \t]*-[ \t]*({_NUMBER})[ \t]*")
_ROW_RULE = re.compile(r"[\s|:\-+]{3,}")
_FILLER = "*`\"' \t"


def read(text: str, kind: str, *, marked: bool = False) -> Array | None:
    """The entries of an answer in prose; an empty list for a denial, None for no answer.

    Args:
        kind: what each entry must have: "box", "bands", "points" or "marks".
        marked: the text is what the model marked as its answer, so that a word is enough.

    Raises:
        Unreadable: a form that was recognised breaks off, or names too many regions.
    """
    if len(text) > MAX_TEXT:
        return None
    lines = [line for line in text.splitlines() if not _FENCE_LINE.fullmatch(line)]
    plain = _PREFIX.sub("", "\n".join(lines).strip(_FILLER + "\n"), count=1)
    if _is_denial(plain) or (marked and _EMPTY.fullmatch(plain.strip(_FILLER + ".!"))):
        return Array([])
    if _CORRECTION.search(plain):
        return None
    found = _table(lines) or _records(lines, kind)
    if found is None and not _DOUBT.search(plain):
        found = _regions(lines, plain, kind)
    if found and len(found) > 1 and _VERSION.search(plain):
        return None
    if found and len(found) > MAX_REGIONS:
        raise Unreadable(f"the reply has more than {MAX_REGIONS} regions")
    return None if found is None else Array([*found])


def _is_denial(text: str) -> bool:
    """Whether the first sentence says that there is no target, and no other takes it back."""
    if len(text) > _MAX_DENIAL:
        return False
    end = _SENTENCE_END.search(text)
    first = text[: end.start() if end else None].strip(_FILLER + ".!")
    rest = text[end.end() if end else len(text) :]
    if _NOTHING.fullmatch(first):
        return not rest.strip()
    return bool(_DENIAL.fullmatch(first)) and not _MORE.search(rest) and not _unsure(rest)


def denies(text: str) -> bool:
    """Whether words behind a place say that what was asked for is not there."""
    return len(text) <= _MAX_DENIAL and _DENIAL.search(text) is not None


def _unsure(rest: str) -> bool:
    return bool(
        re.search(r"\b(?:if|unless|might|may|maybe|perhaps|sure|certain|wait)\b", rest, re.I)
    )


def _regions(lines: list[str], plain: str, kind: str) -> list[Object] | None:
    """Labelled lines, or one sentence with one region."""
    if kind == "marks":
        alone = _MARKS_ALONE.fullmatch(plain)
        found = [alone] if alone else list(_MARKS.finditer(plain))
        if len(found) != 1 or re.search(r"[0-9]", plain.replace(found[0][0], "", 1)):
            return None
        return [entry("", marks=found[0][1])]
    if kind == "bands":
        rows, columns = list(_ROWS.finditer(plain)), list(_COLUMNS.finditer(plain))
        if len(rows) == len(columns) == 1:
            return [entry("", rows=rows[0][1], columns=columns[0][1])]
        return None
    places = [(line, list(_REGION[kind].finditer(line))) for line in lines]
    places = [(line, found) for line, found in places if found]
    if any(len(found) > 1 for _, found in places) or not places:
        return None
    entries = [_on_line(line, found[0], kind, len(places)) for line, found in places]
    return None if None in entries else [item for item in entries if item]


def _on_line(line: str, region: re.Match[str], kind: str, count: int) -> Object | None:
    """The region at the end of a line; what stands before it is its label, or a sentence."""
    if not _AFTER_REGION.fullmatch(line, region.end()):
        return None
    bullet = _BULLET.match(line)
    before = line[bullet.end() if bullet else 0 : region.start()].strip()
    label = label_of(before)
    is_label = len(label.split()) <= 6 and (before.endswith((":", "-", "–", "=", "*", "`")))
    if not is_label and before:
        attached = region[0].startswith("[") and not line[region.start() - 1].isspace()
        if attached and len(label.split()) <= 4:
            is_label = True  # `dog[1, 2, 3, 4]`
        elif count > 1:
            return None
    text = _LIST_WORD.sub(",", region[0])
    return entry(label if is_label else "", **{kind: list_in(text)})


def _table(lines: list[str]) -> list[Object] | None:
    """The rows of a Markdown table."""
    rows = [line.strip() for line in lines if line.strip().startswith("|")]
    if len(rows) < 3 or not _ROW_RULE.fullmatch(rows[1]):
        return None
    names = [normalised(cell.strip(_FILLER + "?")) for cell in _cells(rows[0])]
    names = ["is_target" if name in (*keys.TARGETS, "answer") else name for name in names]
    if any(name in keys.REGION for name in names) or is_named_box(names):
        return [
            Object(dict(zip(names, (c.strip(_FILLER) for c in _cells(row)), strict=False)))
            for row in rows[2 : MAX_REGIONS + 3]
        ]
    return None


def _cells(row: str) -> list[str]:
    return row.strip("|").split("|")


def _records(lines: list[str], kind: str) -> list[Object] | None:
    """The entries of YAML, or of lines such as `Label: dog` and `Box: [1, 2, 3, 4]`."""
    found: list[Object] = []
    current: dict[str, Node] = {}
    listed = False
    matches = [_KEY_LINE.fullmatch(line) for line in lines]
    names = [normalised(match[3]) if match else "" for match in matches]
    if "targets" in names:
        lines = lines[names.index("targets") :]
    elif any(name in (*keys.STEPS, "objects", "candidates", "text") for name in names):
        raise Unreadable("the reply lists objects without saying which are the targets")
    for name, value, starts in _pairs(lines):
        if name in keys.TARGETS:
            if value in ("[]", "null", "~", "none", "None"):
                return []
            listed = True
            continue
        if starts or name in current:
            found.append(Object(current))
            current = {}
        current[name] = value
    found = [item for item in (*found, Object(current)) if item.entries]
    regions = [item for item in found if keys.has_region(item, kind)]
    if not regions or (listed and len(regions) < len(found)):
        return None
    return regions


def _pairs(lines: list[str]) -> Iterator[tuple[str, Node, bool]]:
    """(key, value, whether it begins an entry) of the lines with a known key."""
    numbers: list[Node] | None = None
    pending: tuple[str, bool] | None = None
    for line in [*lines, ""]:
        if pending and numbers is not None and (one := _NUMBER_LINE.fullmatch(line)):
            numbers.append(float(one[1]))
            continue
        if pending and numbers:
            yield pending[0], Array(numbers), pending[1]
        pending = numbers = None
        match = _KEY_LINE.fullmatch(line)
        name = normalised(match[3]) if match else ""
        if not match or name not in keys.KNOWN:
            continue
        value = match[4].strip(_FILLER)
        if not value and name not in keys.TARGETS:
            pending, numbers = (name, bool(match[2])), []
            continue
        yield name, value, bool(match[2])
