"""The embedded reasoner's tokenizer: byte-level BPE, so that a query in any language goes through.

The fragments of the replies, the numbers and the names of the world are one token each; the words
of the queries come out of ordinary BPE training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recipes.embedded.examples import TRAIN_SEED, Ask, prompt_text
from rsvp.embedded import scenes
from rsvp.embedded.replies import FRAGMENTS, NUMBERS
from rsvp.embedded.vocabulary import categories

SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
QUERY_WORDS = 900

# The processor puts the image in by itself; what the model reads is the last thing asked.
CHAT_TEMPLATE = (
    "{%- set asked = (messages | selectattr('role', 'equalto', 'user') | list)[-1]['content'] -%}"
    "{%- if asked is string -%}{{ asked }}{%- else -%}"
    "{%- for part in asked -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
)


def build_tokenizer(prompts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer on prompts; deterministic for the same prompts."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(SPECIAL) + QUERY_WORDS,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(prompts, trainer)
    names = [AddedToken(t.name, single_word=True, lstrip=True, normalized=False) for t in things()]
    fixed = [AddedToken(text, normalized=False) for text in (*FRAGMENTS, *NUMBERS)]
    core.add_tokens([*fixed, *names])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def grown_tokenizer(model: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a trained model, with the fragments that it lacks added at its end."""
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(model))
    known = tokenizer.get_vocab()
    missing = [text for text in (*FRAGMENTS, *NUMBERS) if text not in known]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in missing])
    return tokenizer


def make_tokenizer(
    folder: Path, n: int = 4000, *, start: Path | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`; where there is none yet, that of the model in `start`, grown, or
    one trained now on the questions of n scenes."""
    if not (folder / "tokenizer.json").exists() and start is not None:
        grown_tokenizer(start).save_pretrained(folder)
    elif not (folder / "tokenizer.json").exists():
        made = scenes.scenes(n, TRAIN_SEED, size=96, count=6)
        prompts = [
            prompt_text(q, ("boxes", "grid", "marks")[i % 3], cot=i % 4 < 2)
            for scene in made
            for i, q in enumerate(scene.queries)
        ]
        build_tokenizer(prompts).save_pretrained(folder)
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))


class Told(NamedTuple):
    """Replies as tokens, all (n, length) but the last.

    Attributes:
        ids, mask: padded on the right.
        about: the object that each token speaks of, -1 for none.
        numbers: bool, the token is a number.
        coordinates: (n,) bool, the reply's numbers are coordinates.
    """

    ids: Tensor
    mask: Tensor
    about: Tensor
    numbers: Tensor
    coordinates: Tensor


class Words:
    """Prompts and replies as tensors on a device.

    Attributes:
        names: (things,) token id of each name of the world.
        numbers: (2, 101) token ids of 0 to 100, before a comma and before a bracket.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        self.tokenizer, self.device = tokenizer, device
        ids = tokenizer.convert_tokens_to_ids
        self.names = torch.tensor([ids(t.name) for t in things()], device=device)
        self.numbers = torch.tensor([ids(text) for text in NUMBERS], device=device).view(2, 101)
        self.piece_ids: dict[str, list[int]] = {}

    def prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, each (n, length), padded on the right."""
        made = self.tokenizer(
            [f"<s>{text}</s>" for text in texts],
            padding=True,
            return_tensors="pt",
            add_special_tokens=False,
        )
        return made.input_ids.to(self.device), made.attention_mask.to(self.device)

    def replies(self, asks: Sequence[Ask]) -> Told:
        """The true replies, each with its end of sequence."""
        rows, subjects = [], []
        for ask in asks:
            row: list[int] = []
            about: list[int] = []
            for text, subject in ask.told:
                piece = self.piece(text)
                row += piece
                about += [-1 if subject is None else subject] * len(piece)
            rows.append([*row, self.tokenizer.eos_token_id])
            subjects.append([*about, -1])
        ids = self.padded(rows, 0)
        return Told(
            ids,
            self.padded([[1] * len(row) for row in rows], 0),
            self.padded(subjects, -1),
            torch.isin(ids, self.numbers),
            torch.tensor([ask.boxes for ask in asks], device=self.device),
        )

    def piece(self, text: str) -> list[int]:
        """The ids of a piece of a reply; there are few of them, so each is remembered."""
        if text not in self.piece_ids:
            self.piece_ids[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.piece_ids[text]

    def padded(self, rows: Sequence[list[int]], value: int) -> Tensor:
        """(n, length) rows filled up on the right."""
        length = max(map(len, rows))
        filled = [row + [value] * (length - len(row)) for row in rows]
        return torch.tensor(filled, device=self.device)
