"""Files of edit requests as the paper's tool writes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studio import ROOF, url

from reprise.errors import UserError
from reprise.papers.rewriting.request_json import MOST, Mark, Marks, parse, read, text

OFFICIAL = {
    "query": [208, url(ROOF, side=256)],
    "object": [8, url(ROOF, side=256)],
    "paste": [960, url(ROOF, side=256)],
    "key": [[3, url(ROOF, side=256)], [3, url(ROOF, side=256)], [51, url(ROOF, side=256)]],
}


def test_what_each_key_means():
    marks = parse(json.dumps(OFFICIAL, indent=1))
    assert marks.copy == Mark(8, OFFICIAL["object"][1])
    assert marks.paste.number == 960
    assert [mark.number for mark in marks.context] == [3, 3, 51]
    assert marks.query.number == 208
    named = [(what, mark.number) for what, mark in marks.named()]
    assert named == [("copy", 8), ("paste", 960), ("query", 208), ("context", 3), ("context", 3), ("context", 51)]


@pytest.mark.parametrize("missing", [(), ("key",), ("query", "key"), ("object", "query"), tuple(OFFICIAL)])
def test_files_are_written_as_they_were_read(missing):
    content = {key: value for key, value in OFFICIAL.items() if key not in missing}
    assert json.loads(text(parse(json.dumps(content)))) == content


MARKS = st.builds(Mark, st.integers(0, 10**6), st.text(max_size=20))


@settings(max_examples=50, deadline=None)
@given(
    st.builds(Marks, st.none() | MARKS, st.none() | MARKS, st.lists(MARKS, max_size=3).map(tuple), st.none() | MARKS)
)
def test_any_marks_come_back(marks):
    assert parse(text(marks)) == marks


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "the file: Invalid JSON"),
        ("{", "the file: Invalid JSON"),
        ("[" * 100_000, "the file: Invalid JSON"),
        ("[]", "the file: Input should be an object"),
        ('{"objekt": [1, "x"]}', "objekt: Extra inputs are not permitted"),
        ('{"object": [-1, "x"]}', "object.0: Input should be greater than or equal to 0"),
        ('{"object": ["1", "x"]}', "object.0: Input should be a valid integer"),
        ('{"object": [1.5, "x"]}', "object.0: Input should be a valid integer"),
        ('{"object": [1]}', "object.1: Field required"),
        ('{"key": [1, "x"]}', "key.0: Input should be a valid array"),
        ('{"paste": [1, null]}', "paste.1: Input should be a valid string"),
        (json.dumps({"key": [[1, "x"]] * (MOST + 1)}), "key: List should have at most"),
        (json.dumps({"paste": [1, "x" * 3_000_001]}), "paste.1: String should have at most"),
    ],
    ids=range(13),
)
def test_other_content_is_refused_in_a_sentence(wrong, why):
    with pytest.raises(UserError, match=why) as refused:
        parse(wrong)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing.json cannot be read"):
        read(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x.json: this is no edit request"):
        read(tmp_path / "x.json")
    (tmp_path / "y.json").write_text(json.dumps(OFFICIAL))
    assert read(tmp_path / "y.json").paste.number == 960
