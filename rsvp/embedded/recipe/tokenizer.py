"""The embedded reasoner's tokenizer: byte-level BPE, so that a query in any language goes through.

The fragments of the replies, the numbers and the names of the world are one token each; the words
of the queries come out of ordinary BPE training.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rsvp.embedded.replies import FRAGMENTS, NUMBERS
from rsvp.embedded.world import things

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
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
