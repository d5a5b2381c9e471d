"""Hashed text, the SMS collection, and the pair of the user's e-mails with it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import check_contract, no_store, sentence
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reprise.data import email_to_sms, sms_spam
from reprise.data.store import FileStore, sha256_of
from reprise.data.text import hashed
from reprise.errors import UserError

EMAILS = 'id,label,text\n1,ham,"Dear Ann,\nsee you"\n2,Spam,win a prize now\n3,ham,\n'


def test_hashed_counts_words_whatever_their_order_and_case() -> None:
    x = hashed(["win a prize", "Prize! WIN", "win win", "see you", "", "a ?"], 64)
    assert x.shape == (6, 64)
    assert x.dtype == torch.float32
    assert torch.equal(x[0], x[1])
    assert x[2].abs().max() == 1
    assert (x[0] @ x[2]).item() == pytest.approx(2**-0.5, abs=1e-6)
    assert not x[4:].any()


@given(st.lists(st.text(), min_size=1, max_size=4), st.text())
def test_a_text_hashes_the_same_in_any_company(texts: list[str], one: str) -> None:
    together = hashed([*texts, one], 32)
    assert torch.equal(together[-1:], hashed([one], 32))
    norms = together.norm(dim=1)
    # words that share an input with opposite signs can cancel
    assert (torch.isclose(norms, torch.ones(())) | (norms == 0)).all()


def test_sms_spam(real_store: FileStore) -> None:
    source = sms_spam.load(name="sms_spam", store=real_store)
    check_contract(source)
    assert source.train.x.shape == (5574, 1024)
    assert source.train.y.bincount().tolist() == [4827, 747]
    assert source.train.y[:3].tolist() == [0, 0, 1]
    assert source.spec.classes == ("ham", "spam")
    assert source.test is None
    assert sms_spam.load(name="sms_spam", store=real_store, features=8).spec.shape == (8,)


def test_quotes_and_tabs_are_plain_characters(tmp_path: Path) -> None:
    path = tmp_path / "SMSSpamCollection"
    path.write_text('ham\t"Hi, he said\nspam\tone\ttwo\u2028three\n', encoding="utf-8")
    assert sms_spam.read(path) == (['"Hi, he said', "one\ttwo\u2028three"], [0, 1])


def test_sms_spam_without_network(tmp_path: Path, offline: None) -> None:
    with pytest.raises(UserError) as error:
        sms_spam.load(name="sms_spam", store=FileStore(tmp_path / "data", cache_dir=tmp_path / "cache"))
    sentence(error, "sms_spam/SMSSpamCollection", "dataset/228")


def test_no_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="features"):
        sms_spam.load(name="sms_spam", store=no_store(tmp_path), features=0)


def emails(folder: Path, content: str, **options: Any) -> dict[str, Any]:
    path = folder / "mail.csv"
    path.write_text(content, encoding="utf-8")
    return {"path": str(path), **options}


def test_email_to_sms(real_store: FileStore, tmp_path: Path) -> None:
    given = emails(tmp_path, EMAILS)
    source = email_to_sms.load(name="email_to_sms", store=real_store, **given)
    check_contract(source)
    assert source.train.y.tolist() == [0, 1, 0]
    assert torch.equal(source.train.x, hashed(["Dear Ann,\nsee you", "win a prize now", ""], 1024))
    sms = sms_spam.load(name="sms_spam", store=real_store).train
    assert source.test is not None
    assert torch.equal(source.test.x, sms.x)
    assert torch.equal(source.test.y, sms.y)
    assert source.spec.origin == "user"
    emails(tmp_path, EMAILS + "4,spam,more\n")
    assert email_to_sms.load(name="e", store=real_store, **given).spec.checksum != source.spec.checksum


def test_other_layouts(real_store: FileStore, tmp_path: Path) -> None:
    given = emails(tmp_path, "Message,Spam/Ham\nhello,0\nbuy,1.0\n", text="Message", target="Spam/Ham")
    assert email_to_sms.load(name="e", store=real_store, **given).train.y.tolist() == [0, 1]
    assert email_to_sms.load(name="e", store=real_store, spam=[0], **given).train.y.tolist() == [1, 0]


def test_an_email_beyond_the_csv_module_s_limit(real_store: FileStore, tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    given = emails(tmp_path, f"label,text\nham,{'word ' * limit}\nspam,b\n")
    assert len(email_to_sms.load(name="e", store=real_store, **given).train) == 2
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        (EMAILS, {"text": "txt"}, ["dataset.text", "'txt'", "did you mean 'text'"]),
        (EMAILS, {"target": "labels"}, ["dataset.target", "did you mean 'label'"]),
        (EMAILS, {"target": "id", "spam": ["junk"]}, ["no row as spam", "dataset.spam=['junk']"]),
        (EMAILS.replace("ham", "spam"), {}, ["every row as spam"]),
        (EMAILS.replace(",Spam,", ",,"), {}, ["missing in data row 1"]),
        (EMAILS, {"checksum": "0" * 64}, ["changed", "0" * 64]),
    ],
)
def test_bad_emails(tmp_path: Path, content: str, options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        email_to_sms.load(name="email_to_sms", store=no_store(tmp_path), **emails(tmp_path, content, **options))
    sentence(error, *parts)


def test_without_emails_the_sentence_says_which_work(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        email_to_sms.load(name="email_to_sms", store=no_store(tmp_path))
    sentence(error, "dataset.path=FILE", "spam-mails-dataset", "dataset.text=Message")


def test_the_messages_themselves_are_no_emails(real_store: FileStore, tmp_path: Path) -> None:
    path = real_store.find(sms_spam.files().files[0])
    assert path is not None
    texts, labels = sms_spam.read(path)
    with (tmp_path / "mail.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("label", "text"), *zip(labels[:50], texts[:50], strict=True)])
    with pytest.raises(UserError) as error:
        email_to_sms.load(name="e", store=real_store, path=str(tmp_path / "mail.csv"))
    sentence(error, "50 of the 50 rows", "SMS Spam Collection")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        email_to_sms.load(name="e", store=no_store(tmp_path), path=str(tmp_path / "none.csv"))
    sentence(error, "none.csv does not exist")
    given = emails(tmp_path, EMAILS)
    with pytest.raises(UserError, match="SMSSpamCollection"):
        email_to_sms.load(name="e", store=no_store(tmp_path), checksum=sha256_of(given["path"]), **given)
