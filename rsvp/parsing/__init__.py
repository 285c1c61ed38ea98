"""Reply text -> what the model answered. Pure functions: str in, values out.

Replies are hostile: prose, fences, thinking, half-finished lists, several answers. A reply
either parses to what a careful reader would take from it or raises `UnparsableReply`; zero
targets only ever means that the model said so.

`reply` puts the answer together. `lenient_json` reads text that is almost JSON, `search` decides
which part of the reply is the answer, `values` reads boxes, points and bands however they are
spelled.
"""

from __future__ import annotations

from rsvp.parsing.reply import Expect, ParsedReply, RawStep, RawTarget, parse_reply

__all__ = ["Expect", "ParsedReply", "RawStep", "RawTarget", "parse_reply"]
