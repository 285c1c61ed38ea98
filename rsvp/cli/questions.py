"""What the embedded reasoner knows, and questions to try, as one page of Markdown.

python -m rsvp.cli.questions docs/questions.md             write it
python -m rsvp.cli.questions --check docs/questions.md     exit with 1 when it is out of date
"""

from __future__ import annotations

import sys

from rsvp.cli import help as help_page
from rsvp.embedded import vocabulary

_PAGE = """\
# Questions for the embedded preset

<!-- Written by `python -m rsvp.cli.questions docs/questions.md`; edit rsvp/embedded/world/. -->

The reasoner in the package is a small model. It reads rendered scenes, not photographs, and knows
the things below by their names, groups, synonyms, looks and uses, in ordinary wording: requests,
politeness, capitals and one-letter typing errors are read. It compares positions, sizes and
colours, counts, and says when a thing is not there. Where a query rests on a word that it never
learned, it names the word instead of guessing. It still errs: eval/README.md says how often, on
questions that it was not trained on.

## Thirty questions to try

They are about the shipped picture, and a test asks them:

```bash
rsvp segment --image demo --query "which animal barks?" --out out
```

![Bread, a knife, a banana, a dog, a small and a large cup](../rsvp/embedded/demo.png)

| question | finds |
|---|---|
{questions}
## What it knows

`rsvp models embedded` prints this list. `python -m rsvp.embedded.scenes --n 20 --seed 1 --out S`
renders pictures of these things with questions and true masks.

| group | things |
|---|---|
{things}"""


def page() -> str:
    """The content of docs/questions.md."""
    return _PAGE.format(
        questions="".join(
            f"| {question} | {', '.join(things) or 'nothing: it is not there'} |\n"
            for question, things in vocabulary.examples().items()
        ),
        things="".join(
            f"| {group} | {', '.join(names)} |\n" for group, names in vocabulary.names().items()
        ),
    )


if __name__ == "__main__":
    raise SystemExit(help_page.run(sys.argv[1:], page, "rsvp.cli.questions"))
