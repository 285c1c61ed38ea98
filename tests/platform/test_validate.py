"""pydantic's errors as one line."""

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, field_validator

from rsvp.errors import BadInput
from rsvp.platform.files import validate


class Inner(BaseModel):
    model_config = ConfigDict(strict=True)

    size: list[int]


class Outer(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    flag: bool = False
    inner: Inner | None = None

    @field_validator("name")
    @classmethod
    def _is_short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError(f"is longer than 3 characters: {name!r}")
        return name


def test_a_fitting_value_is_returned():
    assert validate(Outer.model_validate, {"name": "a", "more": 1}, "here") == Outer(name="a")
    assert validate(TypeAdapter(list[int]).validate_python, [1], "here") == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "here: 'name' is missing"),
        ({"name": 7}, "here: 'name' should be string, found int"),
        ({"name": "a", "flag": 1}, "here: 'flag' should be bool, found int"),
        ({"name": "a", "inner": 1}, "here: 'inner' should be an object, found int"),
        ({"name": "a", "inner": {"size": [1, True]}}, "here: 'inner.size.1' should be int, found"),
        ({"name": "long"}, "here: 'name' is longer than 3 characters: 'long'"),
        ([], "here: expected an object, found list"),
        ({"name": "a", "inner": {"size": "x"}, "flag": None}, "here: 'flag' should be bool"),
    ],
)
def test_the_first_fault_is_one_line(value, message):
    with pytest.raises(BadInput) as caught:
        validate(Outer.model_validate, value, "here")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
