"""Work of a stranger's code within bounds of time and memory, in a copy of this process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

SECONDS = 10.0
MEMORY = 1 << 30  # bytes beyond what the process has


class OutOfBounds(ValueError):
    """The work took too long, or too much memory."""


def bounded(work: Callable[[], str]) -> str:
    """What `work` returns; it cannot change anything in this process.

    Only where processes can be copied safely, on Linux; elsewhere there is no bound.

    Raises:
        OutOfBounds: it needs more than `SECONDS` or `MEMORY`.
        ValueError: `work` raised something; its message.
    """
    if sys.platform != "linux":
        return work()
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _work(work, writer, used + MEMORY)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + SECONDS, MEMORY)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    kind, text = answer[:1], answer[1:].decode("utf-8", "surrogatepass")
    if kind == b"=":
        return text
    if kind == b"!":
        raise ValueError(text)
    raise OutOfBounds(f"it needs more than {SECONDS:g} s or {MEMORY >> 20} MB")


def _work(work: Callable[[], str], writer: int, limit: int) -> None:
    """In the copy: write what comes of the work, and end without cleaning up."""
    import resource

    answer = b""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # should this process be killed
        answer = b"=" + work().encode("utf-8", "surrogatepass")
    except MemoryError:
        pass
    except Exception as error:
        answer = b"!" + str(error).encode("utf-8", "surrogatepass")
    finally:
        with contextlib.suppress(BaseException), os.fdopen(writer, "wb") as file:
            file.write(answer)
        os._exit(0)


def _read(reader: int, deadline: float, most: int) -> bytes:
    """All bytes until the other end is closed; nothing after the deadline."""
    parts, length = [], 0
    while length <= most:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            break
        parts.append(os.read(reader, 1 << 16))
        length += len(parts[-1])
        if not parts[-1]:
            return b"".join(parts)
    return b""
