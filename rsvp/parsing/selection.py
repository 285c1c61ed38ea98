"""Candidate lists with a choice: the entries that the model chose, by flags or by name.

`{"objects": […], "answer": "mug"}`, `"selected": [2]`, `"is_target": false` of an entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.values import Unreadable, preview, words

LABEL = (
    *("label", "name", "object", "class", "category", "caption", "description", "target"),
    "text_label",
)
_FLAGS = (
    *("is_target", "is_the_target", "selected", "is_selected", "chosen", "present", "is_present"),
    *("match", "matches", "is_match", "is_answer", "relevant", "found", "exists"),
)
CHOICE = re.compile(r"answer|select|chos|choice|best|target|final|pick|correct|match")
_NO_CHOICE = re.compile(r"count|num|total|score|conf|prob|type|reason|explan")
_YES, _NO = ("yes", "true", "y", "✓", "✔", "✅"), ("no", "false", "n", "✗", "✘", "❌", "x")
_ROLES = ("role", "type", "kind")
_OTHER_ROLES = ("negative", "distractor", "background", "reference", "anchor", "context")
_IDS = ("id", "index", "number", "object_id", "mark", "candidate")
_MAX_COMPARISONS = 10_000
_MAX_SENTENCE = 500
_NOTHING = re.compile(r"\W*(?:none(?: of (?:them|these|the above))?|null|nothing|no|n/a)?\W*", re.I)


def flagged(items: Sequence[Node]) -> list[Node]:
    """The entries without those that say of themselves that they are no target.

    Raises:
        Unreadable: some entries say that they are the target, and others say nothing.
    """
    flags = [_flag(item) for item in items]
    if True in flags and None in flags:
        raise Unreadable("some of the entries say whether they are the target, and some do not")
    return [item for item, flag in zip(items, flags, strict=True) if flag is not False]


def _flag(item: Node) -> bool | None:
    flags = [item.entries.get(name) for name in _FLAGS] if isinstance(item, Object) else []
    flags = [flag.strip().lower() if isinstance(flag, str) else flag for flag in flags]
    role = words(item.first(_ROLES)).lower() if isinstance(item, Object) else ""
    if role in _OTHER_ROLES or any(flag is False or flag in _NO for flag in flags):
        return False
    return True if any(flag is True or flag in _YES for flag in flags) else None


def chosen(node: Object, name: str) -> Array | None:
    """The entries of the list `name` that the object beside it chooses; None without a choice.

    Raises:
        Unreadable: the choice does not say which.
    """
    candidates = node.entries[name]
    found = [key for key in node.entries if key != name and is_choice(key)]
    if not found or not isinstance(candidates, Array):
        return None
    key = found[0]
    choice = node.entries[key]
    wanted = choice.items if isinstance(choice, Array) else [choice]
    if isinstance(choice, bool) or any(isinstance(item, Array | Object) for item in wanted):
        return None
    if choice is None or (isinstance(choice, str) and _NOTHING.fullmatch(choice)):
        wanted = []
    if len(wanted) * len(candidates.items) > _MAX_COMPARISONS:
        raise Unreadable("the choice is too long")
    entries = [item for item in candidates.items if isinstance(item, Object)]
    return Array([_one(item, entries) for item in wanted])


def is_choice(name: str) -> bool:
    """Whether a key says which of several candidates is meant."""
    return bool(CHOICE.search(name[:100])) and not _NO_CHOICE.search(name[:100])


def _one(wanted: Node, entries: list[Object]) -> Node:
    """The candidate that a number or some words name."""
    if isinstance(wanted, str) and wanted.strip().isdecimal():
        wanted = float(wanted.strip()[:9])
    if isinstance(wanted, float):
        key = next((key for key in _IDS if all(key in item.entries for item in entries)), None)
        if key is not None:
            found = [item for item in entries if _same(item.entries[key], wanted)]
        else:
            found = _counted(wanted, entries)
    else:
        text = wanted[:_MAX_SENTENCE].lower() if isinstance(wanted, str) else ""
        found = [item for item in entries if _label(item) == text.strip(" .\"'")]
        found = found or [item for item in entries if _is_word(_label(item), text)]
    if len(found) != 1:
        raise Unreadable(f"{preview(wanted)} does not say which of the {len(entries)} is meant")
    return found[0]


def _counted(wanted: float, entries: list[Object]) -> list[Object]:
    """By position: only where it cannot be counted both from 0 and from 1."""
    if wanted == 0:
        return entries[:1]
    return entries[-1:] if wanted == len(entries) else []


def _same(value: Node, wanted: float) -> bool:
    return value == wanted or (isinstance(value, str) and value.strip() == f"{wanted:g}")


def _label(item: Object) -> str:
    label = item.first(LABEL, "")
    return label.strip().lower() if isinstance(label, str) else ""


def _is_word(label: str, text: str) -> bool:
    """Whether the text, which is a sentence, names the label."""
    return bool(label) and re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None
