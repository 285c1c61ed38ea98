"""A result shows itself: in a notebook with its words, elsewhere in the image viewer."""

from __future__ import annotations

import base64
import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageShow
from scripted import Reply, answer, picture, pipeline

from rsvp.errors import BadInput

FOUND = answer((100, 200, 400, 800), steps=["look <b>here</b>"], reason="it fits & shines")


def ask(text: str = FOUND, **options):
    return pipeline(Reply(text, **options)).segment(picture(), "the cup")


def test_the_cell_has_the_picture_and_the_words_without_scripts() -> None:
    result = ask(finish_reason="length")
    html = result._repr_html_()
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert Pil.open(io.BytesIO(base64.b64decode(data))).size == (200, 100)
    assert "<strong>thing 0 (score 0.90)</strong>" in html
    assert "look &lt;b&gt;here&lt;/b&gt;" in html
    assert "because: it fits &amp; shines" in html
    assert "warning: the reply was cut short" in html
    assert result.reason == "it fits & shines"


def test_the_png_is_the_overlay_and_small() -> None:
    result = ask()
    shown = np.asarray(Pil.open(io.BytesIO(result._repr_png_())))
    np.testing.assert_array_equal(shown, result.overlay())
    large = pipeline(FOUND).segment(picture(height=700, width=1400), "the cup")
    assert Pil.open(io.BytesIO(large._repr_png_())).size == (640, 320)


def test_not_understood_looks_unlike_no_target() -> None:
    none = '{"targets": [], "reason": "no scene"}'
    absent, strange = ask(none), ask(none, familiarity=-1.0)
    assert "no target in this image" in absent._repr_html_()
    assert "no answer: this model cannot read images of this kind" in strange._repr_html_()
    assert "no target" not in strange._repr_html_()
    assert (absent.understood, strange.understood) == (True, False)
    assert (absent.overlay() != strange.overlay()).any()


def test_show_uses_the_notebook_or_the_viewer_or_says_that_there_is_none(monkeypatch) -> None:
    result, shown = ask(), []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image.size) or True)
    result.show()
    assert shown == [(200, 100)]
    monkeypatch.setattr(ImageShow, "show", lambda image: False)
    with pytest.raises(BadInput, match=r"no image viewer: save\(DIR\)"):
        result.show()
    notebook = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1),
        display=SimpleNamespace(display=shown.append),
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    result.show()
    assert shown[-1] is result
