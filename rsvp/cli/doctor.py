"""`rsvp doctor`: what is wrong with this installation, and what fixes it."""

from __future__ import annotations

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson
from rsvp.errors import ModelUnavailable


def doctor(as_json: AsJson = False) -> None:
    """Find what is wrong here and what fixes it.

    Looks at Python, packages, GPU, detectors, optional packages, weights, memory, disk and keys.

    Exits with 4 when something is broken that the embedded preset needs.
    """
    from rsvp import doctor as checks

    findings = checks.examine()
    broken = [finding for finding in findings if finding.status == "broken"]
    if as_json:
        console.as_json({"ok": not broken, "checks": [f.to_dict() for f in findings]})
    else:
        for finding in findings:
            console.print_out(
                f"{finding.status:<6}  {finding.name:<16}  {console.plain(finding.detail)}"
            )
            if finding.fix:
                console.print_out(f"{'':<26}fix it: {finding.fix}")
    if broken:
        raise typer.Exit(ModelUnavailable.exit_code)
