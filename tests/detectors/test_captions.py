"""Which tokens are a phrase's own, and which phrase a box answers to."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from rsvp.detectors import Candidates
from rsvp.detectors.grounded import Caption, match_phrases, write_captions
from rsvp.errors import BadInput


@pytest.fixture(scope="module")
def tokenizer(text_folder: Path):
    return AutoTokenizer.from_pretrained(text_folder)


def words(caption: Caption, tokenizer) -> list[str]:
    return [
        " ".join(tokenizer.convert_ids_to_tokens(list(caption.ids[first:last])))
        for first, last in caption.spans
    ]


@pytest.mark.parametrize(
    ("phrases", "read"),
    [
        (["red cup", "dog"], ["red cup", "dog"]),
        (["St. Bernard", "STOP?"], ["st bernard", "stop"]),
        (["  Wine  glass. "], ["wine glass"]),
        (["杯子", "café"], ["杯 子", "cafe"]),
        (["cups"], ["cup ##s"]),
        (["[SEP]dog"], ["[UNK] [UNK] [UNK] dog"]),  # no end of the caption
        (["dog \udc80"], ["dog"]),
        (["dog unheard"], ["dog [UNK]"]),
    ],
)
def test_every_phrase_has_its_own_tokens(tokenizer, phrases, read) -> None:
    (caption,) = write_captions(phrases, tokenizer, 256)
    assert words(caption, tokenizer) == read
    assert caption.phrases == tuple(phrases)
    assert caption.ids[0] == tokenizer.cls_token_id
    assert caption.ids[-1] == tokenizer.sep_token_id
    for first, last in caption.spans:  # each between two ends, as the network needs it
        assert caption.ids[last] == 1012
        assert caption.ids[first - 1] in (101, 1012)
    assert caption.ids.count(1012) == len(phrases)


def test_it_is_the_caption_that_the_official_code_writes(tokenizer) -> None:
    (caption,) = write_captions(["Red cup", "a dog", "wine glass"], tokenizer, 256)
    assert list(caption.ids) == tokenizer("red cup. a dog. wine glass.")["input_ids"]


def test_equal_phrases_are_asked_once_and_keep_the_first_spelling(tokenizer) -> None:
    (caption,) = write_captions(["Dog", "cup", "dog", "dog."], tokenizer, 256)
    assert caption.phrases == ("Dog", "cup")


def test_unknown_words_alone_are_left_out_and_told(tokenizer, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        (caption,) = write_captions(["zzz", "dog"], tokenizer, 256)
        assert write_captions(["zzz"], tokenizer, 256) == []
    assert caption.phrases == ("dog",)
    assert "'zzz'" in caplog.text


@pytest.mark.parametrize("phrases", [[], "dog", ["dog", " "], ["..."]])
def test_nothing_to_look_for_is_refused(tokenizer, phrases) -> None:
    with pytest.raises(BadInput, match="phrase"):
        write_captions(phrases, tokenizer, 256)


def test_very_many_phrases_are_several_captions(tokenizer) -> None:
    phrases = ["cup", "red dog", "wine glass", "stop sign", "dog"]
    found = write_captions(phrases, tokenizer, 8)
    assert [caption.phrases for caption in found] == [
        ("cup", "red dog"), ("wine glass", "stop sign"), ("dog",),
    ]  # fmt: skip
    assert max(len(caption.ids) for caption in found) == 8
    assert len(write_captions(phrases, tokenizer, 256)) == 1
    with pytest.raises(BadInput, match="at most 5 tokens, found 6"):
        write_captions(["a cup a cup a cup"], tokenizer, 8)


CAPTION = Caption((101, 1, 2, 1012, 3, 1012, 102), ((1, 3), (4, 5)), ("red cup", "dog"))


def test_a_box_answers_to_the_phrase_of_its_best_token() -> None:
    logits = np.full((3, 7), -9, np.float32)
    logits[0, 2], logits[1, 4], logits[2, 3] = 1, 2, 8  # the last on a full stop: nobody's
    boxes = np.array([[0.5, 0.5, 0.5, 1], [0.25, 0.5, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    found = match_phrases(logits, boxes, CAPTION, (100, 200))
    assert found.phrases[:2] == ("dog", "red cup")
    assert found.scores[:2] == pytest.approx([0.8808, 0.7311], abs=1e-4)
    assert found.scores[2] < 0.01
    assert found.boxes[:2].tolist() == [[0, 25, 100, 75], [50, 0, 150, 100]]


def test_boxes_are_cut_to_the_image_and_what_lies_off_it_is_left_out() -> None:
    boxes = np.array([[0, 0, 1, 1], [1.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0, 0.5]], np.float32)
    found = match_phrases(np.zeros((3, 7), np.float32), boxes, CAPTION, (10, 20))
    assert found.boxes.tolist() == [[0, 0, 10, 5]]


def test_masked_tokens_and_large_logits_are_no_trouble() -> None:
    logits = np.full((1, 7), -np.inf, np.float32)
    logits[0, 4] = 1e4
    found = match_phrases(logits, np.full((1, 4), 0.5, np.float32), CAPTION, (10, 20))
    assert found.phrases == ("dog",)
    assert found.scores.tolist() == [1.0]


def test_captions_are_joined_best_first() -> None:
    def one(score: float):
        logits = np.full((1, 7), score, np.float32)
        return match_phrases(logits, np.full((1, 4), 0.5, np.float32), CAPTION, (10, 20))

    assert len(Candidates.concat([])) == 0
    joined = Candidates.concat([one(-1), one(1)])
    assert joined.scores[0] > joined.scores[1]
