"""A whole rsvp plug-in: `rsvp segment --mllm echo:loud ...` answers with the question."""

from rsvp.types import Message, Reply, Usage


class EchoMLLM:
    def __init__(self, model: str = "quiet") -> None:
        self.model = model
        self.name = f"echo:{model}"

    def reply(self, messages: list[Message], *, schema=None) -> Reply:
        words = [part for part in messages[-1].parts if isinstance(part, str)]
        text = " ".join(words)
        return Reply(text.upper() if self.model == "loud" else text, Usage(calls=1))
