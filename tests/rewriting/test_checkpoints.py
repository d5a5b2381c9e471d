"""Generators of others: the same images as a plain forward pass of their layout gives, and nothing in a file is run."""

from __future__ import annotations

import os
import pickle
import pickletools
import sys
import time

import checkpoint_files
import pytest
import torch
from checkpoint_files import (
    nvlabs_images,
    nvlabs_pickle,
    nvlabs_state,
    progan_images,
    progan_state,
    rosinality_state,
)
from studio import url

from reprise.errors import UserError
from reprise.memory import peak_bytes
from reprise.papers.rewriting import editable
from reprise.papers.rewriting.checkpoints import latents, read
from reprise.papers.rewriting.progan import ProGAN
from reprise.papers.rewriting.session import RewriteSession

CHANNELS = [(8, 6), (8, 6, 4), (8, 8, 6, 4, 3)]  # 8, 16 and 64 pixels


def images_of(found, rows=slice(3)):
    with torch.no_grad():
        return found.synthesis(found.ws[rows])


def files(tmp_path, channels=(8, 6, 4), clamp=None):
    nv = nvlabs_state(channels)
    state, average = rosinality_state(nv)
    torch.save({"g_ema": state, "latent_avg": average, "g": {}}, tmp_path / "r.pt")
    (tmp_path / "n.pkl").write_bytes(nvlabs_pickle(nv, clamp))
    return nv, tmp_path / "r.pt", tmp_path / "n.pkl"


@pytest.mark.parametrize("channels", CHANNELS)
def test_both_layouts_of_stylegan2_give_the_images_of_a_plain_forward_pass(tmp_path, channels):
    nv, one, other = files(tmp_path, channels)
    for psi in (0.5, 1.0):
        first, second = read(one, psi), read(other, psi)
        expected = nvlabs_images(nv, latents(16)[:3], psi)
        assert first.synthesis.size == 4 * 2 ** (len(channels) - 1)
        assert torch.equal(images_of(first), images_of(second))
        assert torch.allclose(images_of(first), expected, atol=2e-5 * float(expected.abs().max()))
    assert first.fingerprint == second.fingerprint
    assert "rosinality" in first.title
    assert "NVlabs" in second.title


def test_values_are_clamped_where_the_checkpoint_says_so(tmp_path):
    nv, _, path = files(tmp_path, clamp=0.7)
    found = read(path, 0.5)
    expected = nvlabs_images(nv, latents(16)[:3], 0.5, clamp=0.7)
    assert torch.allclose(images_of(found), expected, atol=1e-5)
    assert not torch.allclose(expected, nvlabs_images(nv, latents(16)[:3], 0.5), atol=1e-2)


@pytest.mark.parametrize("channels", CHANNELS)
def test_progan_gives_the_images_of_a_plain_forward_pass(tmp_path, channels):
    state = progan_state(channels)
    torch.save(state, tmp_path / "p.pth")
    torch.save({"state_dict": state}, tmp_path / "q.pth", _use_new_zipfile_serialization=False)
    for name in ("p.pth", "q.pth"):
        found = read(tmp_path / name)
        assert isinstance(found.synthesis, ProGAN)
        expected = progan_images(state, latents(16)[:3])
        assert expected.std() > 0.3
        apart = (images_of(found) - expected).abs()
        assert apart.max() < 1e-3, "a norm of three channels makes much of what is little"
        assert apart.median() < 1e-6


def test_numbered_images_are_those_of_the_papers_tool():
    import numpy as np

    rows = np.random.RandomState(1).standard_normal(1000 * 512).reshape(1000, 512)
    assert torch.equal(latents(512)[7], torch.from_numpy(rows[7]).float())


def test_a_checkpoint_is_edited_like_any_other_generator(tmp_path):
    _, _, path = files(tmp_path, (8, 8, 6, 4))
    session = RewriteSession(editable.load(path))
    assert session.editable.images == 1000
    before = session.images([0, 1])[1]
    box = url((16, 16, 32, 32))
    session.copy(0, box), session.paste(1, box)
    session.settings = type(session.settings)(layer=6, steps=30)
    session.execute()
    assert not torch.allclose(session.images([1])[1], before[1:])


def test_half_precision_is_read_as_single(tmp_path):
    nv = {name: value.half() for name, value in nvlabs_state().items()}
    (tmp_path / "n.pkl").write_bytes(nvlabs_pickle(nv))
    assert images_of(read(tmp_path / "n.pkl")).dtype == torch.float32


class Evil:
    """What runs when a pickle of it is read."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (sys.exit, "sys.exit"),
        (pickle.loads, "_pickle.loads"),
        (torch.load, "torch.serialization.load"),
    ],
)
def test_whatever_else_a_pickle_names_ends_the_reading(tmp_path, call, named, monkeypatch):
    touched = tmp_path / "touched"
    path = tmp_path / "evil.pkl"
    path.write_bytes(nvlabs_pickle(nvlabs_state(), extra=Evil(call, f"touch {touched}")))
    with pytest.raises(UserError, match=f"names '{named}', which no generator of StyleGAN2-ADA needs"):
        read(path)
    assert not touched.exists()


def test_a_trusted_pickle_may_do_what_it_wants(tmp_path):
    path, touched = tmp_path / "mine.pkl", tmp_path / "touched"
    path.write_bytes(nvlabs_pickle(nvlabs_state(), extra=Evil(os.system, f"touch {touched}")))
    assert read(path, trust=True).synthesis.size == 16
    assert touched.exists()


def test_the_code_in_a_pickle_is_not_run(tmp_path):
    """The fixture's own rebuilding function raises, and its module's source ends the interpreter."""
    _, _, path = files(tmp_path)
    assert b"raise SystemExit" in path.read_bytes()
    read(path)


def state_of_a_function(content):
    """BUILD on one of our own functions, which could set its attributes."""
    return b"\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93N}\x8c\x08__doc__K\x01s\x86b."


HOSTILE = {
    "nothing": lambda content: b"",
    "text": lambda content: b"hello",
    "truncated": lambda content: content[: len(content) // 2],
    "without end": lambda content: content[:-1],
    "deep": lambda content: b"\x80\x04" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "a gigabyte of bytes": lambda content: b"\x80\x04\x8e" + (10**9).to_bytes(8, "little") + b"x.",
    "a gigabyte of bytearray": lambda content: b"\x80\x05\x96" + (10**9).to_bytes(8, "little") + b"x.",
    "a place far away in the memo": lambda content: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a list": lambda content: pickle.dumps([1, 2]),
    "no generator": lambda content: pickle.dumps({"G": 1}),
    "attributes of a function": state_of_a_function,
    "an instance of old": lambda content: b"\x80\x02(ios\nsystem\n.",
    "persistent": lambda content: b"\x80\x02Pabc\n.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_generator_is_refused_in_a_sentence(tmp_path, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(HOSTILE[name](nvlabs_pickle(nvlabs_state())))
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 400 + len(str(path))
    assert "\n" not in str(caught.value)


def claims(content, was, now):
    """The same pickle with other numbers in it."""
    assert content.count(was) >= 1
    return content.replace(was, now)


def test_tensors_that_claim_more_than_there_is_are_refused(tmp_path):
    content = nvlabs_pickle(nvlabs_state())
    sizes = [op for op in pickletools.genops(content) if op[0].name == "BININT1"]
    assert sizes, "sizes are written as small integers"
    whole = b"(K\x08K\x06K\x03K\x03t" if b"(K\x08K\x06K\x03K\x03t" in content else b"(K\x06K\x08K\x03K\x03t"
    path = tmp_path / "x.pkl"
    path.write_bytes(claims(content, whole, whole.replace(b"K\x03K\x03t", b"K\xffK\xfft")))
    with pytest.raises(UserError, match="larger than its storage"):
        read(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.pop("synthesis.b8.conv0.weight"), "is incomplete: it has no synthesis.b8.conv0.weight"),
        (lambda s: s.update({"synthesis.b8.conv1.bias": torch.zeros(5)}), "make no generator"),
        (lambda s: s.update({"synthesis.b8.conv0.resample_filter": torch.ones(2, 2)}), "another filter"),
        (lambda s: s.update({"mapping.embed.weight": torch.zeros(4, 4)}), "draws classes on demand"),
    ],
)
def test_other_networks_are_refused(tmp_path, change, why):
    state = nvlabs_state()
    change(state)
    path = tmp_path / "x.pkl"
    path.write_bytes(nvlabs_pickle(state))
    with pytest.raises(UserError, match=why):
        read(path)


def test_files_of_torch_that_hold_something_else(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="holds weights: a generator of rosinality has g_ema"):
        read(path)
    torch.save({"g_ema": Evil(os.system, "true")}, path)
    with pytest.raises(UserError, match="is no checkpoint of a generator"):
        read(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is no checkpoint of a generator"):
        read(path)
    with pytest.raises(UserError, match="there is no generator"):
        read(tmp_path / "missing.pt")


@pytest.mark.reproduction
def test_a_network_of_1024_pixels_is_the_same_in_both_layouts_and_takes_an_edit(tmp_path, monkeypatch):
    """Of the size of the published networks, with random weights; time and memory are printed."""
    monkeypatch.setattr(checkpoint_files, "STYLE", 512)
    _, one, other = files(tmp_path, (512, 512, 512, 512, 512, 256, 128, 64, 32))
    first, second = read(one), read(other)
    assert first.synthesis.size == 1024
    assert torch.equal(images_of(first, slice(1)), images_of(second, slice(1)))
    session = RewriteSession(editable.of_checkpoint(second))
    session.copy(0, url((16, 16, 16, 16))), session.paste(1, url((30, 30, 16, 16)))
    session.settings = type(session.settings)(layer=8, steps=200)
    began = time.perf_counter()
    session.execute()
    print(f"an edit of layer 8 in {time.perf_counter() - began:.0f} s, {peak_bytes() / 2**30:.1f} GiB at the peak")
    before, after = session.images([1])
    assert not torch.allclose(before, after)
    assert peak_bytes() < 8 * 2**30
