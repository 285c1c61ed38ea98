"""Write `world/languages/cldr.json`: the names and keywords of other languages.

    python -m recipes.embedded cldr --source DIR

reads the folder `annotations` of the npm package cldr-annotations-full 48.2.0.
"""

from __future__ import annotations

import json
from pathlib import Path

from rsvp.embedded.languages import TABLES, TRANSLATED
from rsvp.embedded.vocabulary import categories
from rsvp.errors import BadInput
from rsvp.platform.files import parse_json, read_bytes, write_text


def build(source: Path) -> None:
    """Write cldr.json: language -> name -> the name in it, then its keywords.

    Raises:
        BadInput: a file is missing or has no such annotations.
    """
    found = {}
    for language in TRANSLATED:
        file = source / language / "annotations.json"
        try:
            entries = parse_json(read_bytes(file), str(file))["annotations"]["annotations"]
            rows = {
                c.name: [*entries[c.char]["tts"], *entries[c.char]["default"]] for c in categories()
            }
        except (KeyError, TypeError) as error:
            raise BadInput(f"{file}: no annotations of {error}") from error
        found[language] = {name: list(dict.fromkeys(row)) for name, row in rows.items()}
    write_text(TABLES / "cldr.json", json.dumps(found, ensure_ascii=False, indent=0) + "\n")
