"""What a backend may leave out."""

from __future__ import annotations

from rsvp import mllm
from rsvp.types import Reply


class MinimalMLLM:
    name = "minimal:m"
    model = "m"

    def reply(self, messages, *, schema=None) -> Reply:
        return Reply("")


class FullMLLM(MinimalMLLM):
    remote = True
    loaded = False

    def load(self) -> None:
        self.loaded = True


def test_a_backend_without_the_optional_members() -> None:
    backend = MinimalMLLM()
    assert isinstance(backend, mllm.MLLM)
    assert not mllm.is_remote(backend)
    mllm.load(backend)


def test_a_backend_with_them() -> None:
    backend = FullMLLM()
    assert mllm.is_remote(backend)
    mllm.load(backend)
    assert backend.loaded
