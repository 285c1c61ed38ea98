"""The tokenizer of the embedded reasoner: byte-level BPE, which encodes any language.

The fragments of the replies, the numbers and the names of the categories are one token each; the
words of the queries come from ordinary BPE training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recipes.embedded.examples import TRAIN_SEED, Turn, prompt_text
from recipes.embedded.looking import DETAIL_CLASSES
from recipes.embedded.replies import END, FRAGMENTS, NUMBERS
from recipes.embedded.task_replies import TASK_FRAGMENTS
from recipes.embedded.tasks import task_prompts
from rsvp.embedded.scenes import scenes
from rsvp.embedded.vocabulary import categories

SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
QUERY_WORDS = 900
WORD_START = "Ġ"  # byte-level BPE's letter for a space
FIXED = (*FRAGMENTS, *TASK_FRAGMENTS, *NUMBERS)

# The processor inserts the image itself; the model reads the last user message alone.
CHAT_TEMPLATE = (
    "{%- set asked = (messages | selectattr('role', 'equalto', 'user') | list)[-1]['content'] -%}"
    "{%- if asked is string -%}{{ asked }}{%- else -%}"
    "{%- for part in asked -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
)


def make_tokenizer(
    folder: Path, n: int = 4000, *, start: Path | None = None, words: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`, made first where there is none.

    Args:
        n: scenes whose queries a new tokenizer is trained on.
        start: folder of a trained model; its tokenizer is extended instead, by `words` too.
    """
    if not (folder / "tokenizer.json").exists():
        if start is None:
            made = train_tokenizer([*scene_prompts(n), *task_prompts(n // 8, TRAIN_SEED)])
        else:
            made = extended_tokenizer(start, words)
        made.save_pretrained(folder)
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))


def scene_prompts(n: int) -> list[str]:
    """The prompts of n scenes' queries, every strategy in turn."""
    return [
        prompt_text(query, ("boxes", "grid", "marks")[i % 3], cot=i % 4 < 2)
        for scene in scenes(n, TRAIN_SEED, size=96, count=6)
        for i, query in enumerate(scene.queries)
    ]


def train_tokenizer(prompts: Iterable[str]) -> PreTrainedTokenizerFast:
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
    fixed = [AddedToken(text, normalized=False) for text in FIXED]
    core.add_tokens([*fixed, *(_word(c.name) for c in categories())])
    return wrap(core)


def wrap(core: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers saves it, with its chat template."""
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


def extended_tokenizer(model: Path, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a trained model, with the fragments and words that it lacks at its end.

    A known word is one token, whatever the merges make of it.
    """
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(model))
    known = tokenizer.get_vocab()
    missing = [text for text in FIXED if text not in known]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in missing])
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in state["added_tokens"]}
    for word in filter(str.isalpha, words):
        vocabulary.setdefault(WORD_START + word, len(vocabulary))
    state["model"]["ignore_merges"] = True
    return wrap(Tokenizer.from_str(json.dumps(state)))


def word_rows(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Word -> its token id, of the words that are one token after a space."""
    return {
        token.removeprefix(WORD_START): row
        for token, row in tokenizer.get_vocab().items()
        if token.startswith(WORD_START) and token[1:].isalpha()
    }


def unwritten_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """The ids of the tokens that no reply holds: the words and pieces of questions."""
    return set(range(len(tokenizer))) - set(tokenizer.added_tokens_decoder)


def _word(text: str) -> AddedToken:
    """A name: one token where it stands as a word, with the space before it."""
    return AddedToken(text, single_word=True, lstrip=True, normalized=False)


class ReplyTokens(NamedTuple):
    """Replies as tokens, all (n, length) but the last.

    Attributes:
        ids, mask: padded on the right.
        objects: the object that each token speaks of, -1 for none.
        is_read: bool, what the token says is read off a tag or a detail.
        coordinates: (n,) bool, the numbers of the reply are coordinates.
    """

    ids: Tensor
    mask: Tensor
    objects: Tensor
    is_read: Tensor
    coordinates: Tensor


class TurnEncoder:
    """Prompts and replies as tensors on a device.

    Attributes:
        name_ids: (categories,) token id of each category's name.
        number_ids: (2, 101) token ids of 0 to 100, before a comma and before a bracket.
        read_ids: those, and the ids of the values of details.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        self.tokenizer, self.device = tokenizer, device
        ids = tokenizer.convert_tokens_to_ids
        self.name_ids = torch.tensor([ids(c.name) for c in categories()], device=device)
        self.number_ids = torch.tensor([ids(text) for text in NUMBERS], device=device).view(2, 101)
        values = [ids(value + END) for _, value in DETAIL_CLASSES]
        self.read_ids = torch.cat([self.number_ids.flatten(), torch.tensor(values, device=device)])
        self._piece_ids: dict[str, list[int]] = {}  # there are few different pieces

    def prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, each (n, length), padded on the right."""
        made = self.tokenizer(
            [f"<s>{text}</s>" for text in texts],
            padding=True,
            return_tensors="pt",
            add_special_tokens=False,
        )
        return made.input_ids.to(self.device), made.attention_mask.to(self.device)

    def replies(self, turns: Sequence[Turn]) -> ReplyTokens:
        """The true replies, each with its end of sequence."""
        rows, subjects = [], []
        for turn in turns:
            pairs = [(i, o) for text, o in turn.reply for i in self._ids(text)]
            rows.append([*(i for i, _ in pairs), self.tokenizer.eos_token_id])
            subjects.append([*(-1 if o is None else o for _, o in pairs), -1])
        ids = self._padded(rows, 0)
        return ReplyTokens(
            ids,
            self._padded([[1] * len(row) for row in rows], 0),
            self._padded(subjects, -1),
            torch.isin(ids, self.read_ids),
            torch.tensor([turn.coordinates for turn in turns], device=self.device),
        )

    def _ids(self, text: str) -> list[int]:
        if text not in self._piece_ids:
            self._piece_ids[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._piece_ids[text]

    def _padded(self, rows: Sequence[list[int]], value: int) -> Tensor:
        """(n, length) rows filled up on the right."""
        length = max(map(len, rows))
        filled = [row + [value] * (length - len(row)) for row in rows]
        return torch.tensor(filled, device=self.device)
