"""Settings: what can be chosen, and the sentence for what cannot."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.explore.settings import CHOICES, LARGEST, READ, Settings, settings_of

ANY = st.builds(
    Settings,
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
    steps=st.integers(1, 64),
    hidden=st.integers(1, 16),
    scale=st.floats(0, 3),
    k2=st.integers(1, 64),
    seed=st.integers(0, 9999),
)


@given(ANY)
def test_a_query_says_all_that_was_chosen(settings: Settings) -> None:
    assert settings_of(settings.query()) == settings


def test_what_is_left_out_is_as_on_the_page_when_it_opens() -> None:
    assert settings_of("") == Settings()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("cell=transformer", "cell must be rnn, lstm or gru, not 'transformer'"),
        ("nonlinearity=", "nonlinearity must be tanh, relu or sigmoid, not ''"),
        ("loss=first", "loss must be last or every"),
        ("steps=0", "steps must be a whole number from 1 to 64, not '0'"),
        ("steps=65", "from 1 to 64"),
        ("steps=-1", "from 1 to 64"),
        ("steps=1e1", "from 1 to 64"),
        ("steps=٣", "from 1 to 64"),
        ("steps=" + "9" * 5000, "from 1 to 64"),
        ("hidden=17", "hidden must be a whole number from 1 to 16, not '17'"),
        ("scale=nan", "scale must be a number from 0 to 3, not 'nan'"),
        ("scale=inf", "scale must be a number from 0 to 3"),
        ("scale=-0.1", "scale must be a number from 0 to 3"),
        ("scale=3.01", "scale must be a number from 0 to 3"),
        ("scale=one", "scale must be a number from 0 to 3"),
        ("k2=0", "k2 must be a whole number from 1 to 64"),
        ("seed=10000", "seed must be a whole number from 0 to 9999"),
        ("depth=3", "there is no setting 'depth': the settings are cell, "),
        ("steps=3&steps=4", "steps must be given once"),
        ("steps", "the settings must be name=value"),
        ("&".join(["steps=3"] * 9), "the settings must be name=value"),
    ],
)
def test_a_bad_value_gets_a_sentence(query: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        settings_of(query)
    assert says in str(error.value) and len(str(error.value)) < 200


def test_the_controls_of_the_page_offer_what_the_settings_take() -> None:
    page = files("tinygrad_rnn.explore").joinpath("page", "index.html").read_text(encoding="utf-8")
    tags = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) | {"tag": tag} for tag in re.findall(r"<input [^>]*>", page)]
    default = Settings()
    for name in READ:
        found = [tag for tag in tags if tag.get("name") == name]
        if name in CHOICES:
            assert tuple(tag["value"] for tag in found) == CHOICES[name]
            assert [tag["value"] for tag in found if "checked" in tag["tag"]] == [getattr(default, name)]
        else:
            (tag,) = found
            assert READ[name](tag["min"]) is not None and float(tag["max"]) == LARGEST[name]
            assert READ[name](tag["value"]) == getattr(default, name)
            assert float(tag["step"]) == (0.05 if name == "scale" else 1)
            with pytest.raises(InputError):
                READ[name](str(float(tag["min"]) - 1).removesuffix(".0"))
