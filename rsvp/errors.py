"""The errors a caller can act on. Each is one line: what happened and what to do."""

from __future__ import annotations

import unicodedata

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories
_HARMLESS = "\n\t\u200c\u200d"  # the joiners shape Persian, Hindi and emoji


class RsvpError(Exception):
    """Base of every error that rsvp raises on purpose; `exit_code` is what the CLI exits with."""

    exit_code = 1


class RsvpWarning(UserWarning):
    """Category of the warnings of a result, which Python shows too."""


class BadInput(RsvpError):
    """The caller's image, box, query, file or option cannot be used."""

    exit_code = 2


class MLLMFailed(RsvpError):
    """The MLLM could not be reached, or answered with an error after every retry."""

    exit_code = 3


class AccessDenied(MLLMFailed):
    """The server refuses the key, so that it would refuse every other request too."""


class UnparsableReply(MLLMFailed):
    """A reply that no careful reader could take an answer from.

    Attributes:
        raw: the reply, exactly as the model wrote it.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class BudgetExceeded(MLLMFailed):
    """A bound on calls, tokens, seconds or dollars was reached."""


class RunBudgetExceeded(BudgetExceeded):
    """The bound of a whole run was reached: no other sample can be answered either."""


class ModelUnavailable(RsvpError):
    """Weights, a key or a server are missing; the message names what gets them."""

    exit_code = 4


class MissingExtra(RsvpError):
    """An optional package is not installed; the message is the exact `pip install` line."""

    exit_code = 4

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional package: pip install 'rsvp-segmentation[{extra}]'"
        )
        self.extra = extra


def one_line(error: BaseException) -> str:
    """An error's whole message on one line; its class where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, not too long; its class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def printable(text: str) -> str:
    """The text with escapes, e.g. ``\\x1b``, for what could steer a terminal or hide words.

    These are control characters other than line breaks and tabs, characters that reverse the
    direction of writing or are invisible, and halves of surrogate pairs.
    """
    return "".join(
        c if c.isprintable() or c in _HARMLESS or unicodedata.category(c) not in _STEERING
        else c.encode("unicode_escape").decode()
        for c in text
    )  # fmt: skip
