"""Reads the reply of an MLLM. Pure functions: text in, values out.

Replies contain prose, fences, thinking, lists that stop in the middle, several answers. A reply
either gives what a careful reader would take from it or raises `UnparsableReply`; there is no
guessing, and no targets always means that the model said so.

`reply` builds the values, `lenient_json` reads text that is almost JSON, `search` decides which
part of the reply is the answer, `values` reads boxes, points, bands and marks, `path` reads
reasoning paths, `verdicts` what is said about masks.
"""

from __future__ import annotations

from rsvp.parsing.path import parse_path
from rsvp.parsing.reply import Expect, ParsedReply, RawStep, RawTarget, parse_reply
from rsvp.parsing.verdicts import ParsedVerdicts, RawVerdict, parse_better, parse_verdicts

__all__ = [
    "Expect",
    "ParsedReply",
    "ParsedVerdicts",
    "RawStep",
    "RawTarget",
    "RawVerdict",
    "parse_better",
    "parse_path",
    "parse_reply",
    "parse_verdicts",
]
