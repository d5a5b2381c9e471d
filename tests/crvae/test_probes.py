import pytest
import torch
from linear_gaussian import generator

from reprise.papers.crvae.probes import Probes


def clusters(n, classes=4, d=6, seed=0, spread=0.2):
    g = generator(seed)
    y = torch.arange(n) % classes
    centres = 3 * torch.eye(max(classes, d))[:classes, :d]
    return centres[y] + spread * torch.randn(n, d, generator=g), y


def judge(train, test, transformed=None, **options):
    return Probes(**({"draws": 2, "hidden": 16} | options))(
        train, test, test[0] if transformed is None else transformed
    )


def test_classes_that_lie_apart_are_told_apart():
    found = judge(clusters(200), clusters(100, seed=1))
    assert set(found) == {
        *("probe/linear", "probe/transformed", "probe/two_layer"),
        *("probe/ten_labels", "probe/ten_labels_transformed"),
    }
    assert all(value == 1.0 for value in found.values())


def test_labels_that_mean_nothing_are_guessed():
    x, _ = clusters(2000)
    y = torch.randint(0, 4, (2000,), generator=generator(3))
    found = judge((x[:1000], y[:1000]), (x[1000:], y[1000:]))
    assert all(abs(value - 0.25) < 0.08 for value in found.values())


def test_features_that_move_lose_what_they_moved():
    train, test = clusters(200), clusters(100, seed=1)
    found = judge(train, test, transformed=test[0].roll(1, 1))
    assert found["probe/linear"] == 1
    assert found["probe/transformed"] < 0.5
    assert found["probe/ten_labels_transformed"] < 0.5


def test_few_labels_are_few(monkeypatch):
    seen = []
    probes = Probes(per_class=7, draws=3, hidden=0)
    monkeypatch.setattr(probes, "_linear", lambda x, y, *tests: seen.append(y.tolist()) or [0.0, 0.0])
    probes(clusters(200), clusters(40), clusters(40)[0])
    assert all(labels.count(c) == 7 for labels in seen[1:] for c in range(4))
    assert len(seen) == 4


def test_a_class_with_fewer_gives_all_it_has():
    x, y = clusters(43, classes=4)
    keep = (y != 3) | (torch.arange(43) < 8)  # two of class 3
    found = judge((x[keep], y[keep]), clusters(40, seed=1))
    assert found["probe/ten_labels"] > 0.9


def test_draws_follow_the_seed():
    train, test = clusters(300, spread=2.0), clusters(200, seed=1, spread=2.0)
    assert judge(train, test) == judge(train, test)
    assert judge(train, test)["probe/ten_labels"] != judge(train, test, seed=1)["probe/ten_labels"]


def test_a_part_of_the_labels(monkeypatch):
    seen = []
    probes = Probes(train=50, draws=1, hidden=0)
    monkeypatch.setattr(probes, "_linear", lambda x, y, *tests: seen.append(len(y)) or [0.0, 0.0])
    probes(clusters(200), clusters(40), clusters(40)[0])
    assert seen[0] == 50


@pytest.mark.parametrize("y", [torch.zeros(30, dtype=torch.long), torch.rand(30)])
def test_what_has_no_classes_has_no_probe(y):
    assert judge((torch.rand(30, 3), y), (torch.rand(30, 3), y)) == {}
