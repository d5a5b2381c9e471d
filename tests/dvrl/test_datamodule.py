"""DVRL's protocol: who gets which rows, what is damaged, what scaling is fitted on."""

from __future__ import annotations

import pytest
import torch
from dvrl_tasks import numbered, source_of, table
from pydantic import ValidationError

from reprise.data import breast_cancer, digits
from reprise.data.base import Split
from reprise.errors import UserError
from reprise.papers.dvrl.datamodule import ValuationData


def ids(x):
    return x[:, 0].round().long().tolist()


def prepared(source, seed=0, scaling="none", **options):
    return ValuationData(source, seed=seed, scaling=scaling, **options)


def of(source, seed=0, **options):
    return prepared(source, seed, **options).task


def sizes(task):
    return len(task.y_train), len(task.y_valid), len(task.y_test)


def changed(split, row, column, value):
    x = split.x.clone()
    x[row, column] = value
    return Split(x, split.y)


def test_digits_has_the_papers_sizes():
    data = ValuationData(digits.load(name="digits", store=None), seed=0)
    assert sizes(data.task) == (1000, 400, 397)
    assert data.task.x_train.shape == (1000, 64)
    assert data.task.corrupted.sum() == 200
    assert (data.spec.shape, data.spec.rows) == ((64,), 1000)
    assert data.protocol == {
        "train_size": 1000,
        "validation_size": 400,
        "test_size": 397,
        "noise_rate": 0.2,
        "noise_kind": "flip_other",
        "scaling": "minmax",
    }


def test_a_small_data_set_gives_a_fifth_each_to_validation_and_test():
    task = of(breast_cancer.load(name="breast_cancer", store=None))
    assert sizes(task) == (569 - 113 - 113, 113, 113)
    assert task.corrupted.sum() == 68  # floor(0.2 * 343)


def test_sizes_as_asked():
    task = of(source_of(numbered(100)), train_size=31, validation_size=17, test_size=23)
    assert sizes(task) == (31, 17, 23)


def test_asking_for_training_rows_alone_leaves_the_rest_to_the_test():
    assert sizes(of(digits.load(name="digits", store=None), train_size=300)) == (300, 400, 1097)


@pytest.mark.parametrize("origin", ["public", "user"])
@pytest.mark.parametrize("classes", [0, 3])
def test_the_three_parts_are_disjoint_and_keep_their_targets(origin, classes):
    whole = numbered(100, classes)
    task = of(source_of(whole, classes, origin), noise_rate=0.2)
    parts = [ids(task.x_train), ids(task.x_valid), ids(task.x_test)]
    together = [row for part in parts for row in part]
    assert sorted(together) == list(range(100))
    assert ids(task.x_train) == task.rows.tolist()
    for part, y in zip(parts, (task.y_true, task.y_valid, task.y_test), strict=True):
        torch.testing.assert_close((task.y_mean + task.y_scale * y).float(), whole.y[part].float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["flip_other", "uniform_all", "background", "pairflip", "shuffle"])
def test_only_training_labels_are_damaged(kind):
    whole = numbered(200)
    before = whole.y.clone()
    task = of(source_of(whole), noise_kind=kind, noise_rate=0.3)
    assert torch.equal(whole.y, before)
    assert torch.equal(task.y_valid, whole.y[ids(task.x_valid)])
    assert torch.equal(task.y_test, whole.y[ids(task.x_test)])
    assert torch.equal(task.corrupted, task.y_train != task.y_true)
    assert 0 < task.corrupted.sum() <= int(0.3 * len(task.y_train))
    assert task.knows_truth


def test_flip_other_damages_exactly_the_floor_of_the_rate():
    task = of(source_of(numbered(200)), noise_rate=0.33, train_size=101)
    assert task.corrupted.sum() == 33


def test_regression_exchanges_targets_and_standardises_by_the_training_rows():
    data = prepared(source_of(numbered(100, 0), 0), noise_rate=0.3)
    task = data.task
    assert data.protocol["noise_kind"] == "shuffle"
    assert 5 <= task.corrupted.sum() <= 18
    assert torch.equal(task.y_train.sort().values, task.y_true.sort().values)
    assert task.y_train.mean().item() == pytest.approx(0, abs=1e-5)
    assert task.y_train.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert task.y_mean == pytest.approx(50, abs=15)
    assert task.y_train.dtype == task.y_test.dtype == torch.float32


def test_the_seed_decides_split_and_damage():
    source = source_of(numbered(100))
    first, again, other = (of(source, seed=seed) for seed in (1, 1, 2))
    for name in ("x_train", "y_train", "y_true", "corrupted", "rows", "x_valid", "y_valid", "x_test", "y_test"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.rows, other.rows)
    assert not torch.equal(first.corrupted, other.corrupted)


def test_the_split_does_not_depend_on_the_noise():
    source = source_of(numbered(100))
    assert torch.equal(of(source, noise_rate=0.0).rows, of(source, noise_rate=0.4).rows)


def test_official_test_rows_serve_as_validation_and_test():
    task = of(source_of(numbered(60), test=numbered(50, start=1000)))
    assert sizes(task) == (60, 10, 40)
    assert sorted(ids(task.x_train)) == list(range(60))
    assert sorted(ids(task.x_valid) + ids(task.x_test)) == list(range(1000, 1050))


def test_a_large_official_test_set_gives_the_papers_sizes():
    task = of(source_of(numbered(1200), test=numbered(1700, start=5000)))
    assert sizes(task) == (1000, 400, 1300)


def test_a_given_validation_set_is_used_whole_and_only_there():
    task = of(source_of(numbered(60), test=numbered(30, start=1000), validation=numbered(20, start=2000)))
    assert sizes(task) == (60, 20, 30)
    assert ids(task.x_valid) == list(range(2000, 2020))
    assert sorted(ids(task.x_test)) == list(range(1000, 1030))
    task = of(source_of(numbered(60), validation=numbered(20, start=2000)))
    assert sizes(task) == (48, 20, 12)
    assert sorted(ids(task.x_train) + ids(task.x_test)) == list(range(60))


def test_a_users_labels_are_left_alone_and_rows_keep_the_files_order():
    whole = numbered(100, origin="user")
    data = prepared(source_of(whole, origin="user"))
    task = data.task
    assert sizes(task) == (60, 20, 20)
    assert task.rows.tolist() == sorted(task.rows.tolist()) == ids(task.x_train)
    assert torch.equal(task.y_train, whole.y[task.rows])
    assert not task.corrupted.any()
    assert not task.knows_truth
    assert data.protocol["noise_rate"] == 0


def test_all_rows_of_a_users_file_are_valued_however_many():
    given = {"test": numbered(30, start=5000), "validation": numbered(20, start=6000)}
    task = of(source_of(numbered(1500), origin="user", **given))
    assert task.rows.tolist() == list(range(1500)) == ids(task.x_train)
    assert sizes(of(source_of(numbered(2000), origin="user"))) == (1200, 400, 400)


@pytest.mark.parametrize("rate", [0.01, 0.0])
def test_where_nothing_was_damaged_there_is_nothing_to_discover(rate):
    task = of(source_of(numbered(100)), noise_rate=rate)
    assert not task.corrupted.any()
    assert not task.knows_truth


def test_a_user_may_ask_for_damage():
    task = of(source_of(numbered(100), origin="user"), noise_rate=0.5)
    assert task.corrupted.sum() == 30
    assert task.knows_truth


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"train_size": 61}, "method.datamodule.train_size=61 is more than the 60 rows"),
        ({"validation_size": 100}, "method.datamodule.validation_size=100 is more than the 99 rows"),
        ({"validation_size": 40, "test_size": 61}, "method.datamodule.test_size=61 is more than the 60 rows"),
        ({"validation_size": 40, "test_size": 50, "train_size": 11}, "train_size=11 is more than the 10 rows"),
    ],
)
def test_impossible_sizes_are_refused_by_name(options, told):
    with pytest.raises(UserError, match=told):
        of(source_of(numbered(100)), **options)


def test_sizes_beyond_an_official_test_set_are_refused_by_name():
    source = source_of(numbered(60), test=numbered(50, start=1000))
    for options, told in (
        ({"train_size": 61}, "method.datamodule.train_size=61 is more than the 60 rows"),
        ({"validation_size": 20, "test_size": 31}, "method.datamodule.test_size=31 is more than the 30 rows"),
    ):
        with pytest.raises(UserError, match=told):
            of(source, **options)


def test_training_rows_of_a_single_class_are_refused():
    lonely = Split(torch.rand(50, 2), torch.zeros(50, dtype=torch.int64))
    with pytest.raises(UserError, match="single class"):
        of(source_of(lonely))


@pytest.mark.parametrize(
    "wrong",
    [{"noise_rate": 1.0}, {"noise_kind": "flip"}, {"train_size": 0}, {"scaling": "robust"}, {"unseen_size": -1}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        of(source_of(numbered(100)), **wrong)


@pytest.mark.parametrize("scaling", ["minmax", "standard", "minmax_all"])
def test_scaling_is_fitted_on_training_rows_only_except_in_the_official_way(scaling):
    whole = numbered(100)
    a_test_row = ids(of(source_of(whole)).x_test)[0]
    poisoned = source_of(changed(whole, a_test_row, 1, 1e6))
    clean, dirty = (prepared(source, scaling=scaling).task for source in (source_of(whole), poisoned))
    assert torch.equal(clean.rows, dirty.rows)
    assert torch.equal(clean.x_train, dirty.x_train) is (scaling != "minmax_all")
    assert torch.equal(clean.x_valid, dirty.x_valid) is (scaling != "minmax_all")
    assert not torch.equal(clean.x_test, dirty.x_test)


def test_scaled_ranges():
    source = source_of(table(300))
    standard, minmax, all_rows, raw = (
        prepared(source, scaling=s).task for s in ("standard", "minmax", "minmax_all", "none")
    )
    torch.testing.assert_close(standard.x_train.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.x_train.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(minmax.x_train.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    low, high = minmax.x_train.min(0).values, minmax.x_train.max(0).values
    torch.testing.assert_close(high - low, torch.ones(4))
    for part in (minmax.x_valid, minmax.x_test):  # unseen values are clipped to the range
        assert ((part >= low - 1e-6) & (part <= high + 1e-6)).all()
    together = torch.cat([all_rows.x_train, all_rows.x_valid, all_rows.x_test])
    torch.testing.assert_close(together.min(0).values, torch.zeros(4))
    torch.testing.assert_close(together.max(0).values, torch.ones(4))
    assert torch.equal(raw.x_train, source.train.x[raw.rows])


@pytest.mark.parametrize("scaling", ["minmax", "standard", "minmax_all", "none"])
def test_a_constant_column_stays_finite(scaling):
    whole = table(60)
    whole.x[:, 2] = 7
    task = prepared(source_of(whole), scaling=scaling).task
    assert task.x_train.isfinite().all()
    assert task.x_train[:, 2].std() == 0


def test_the_spec_tells_the_width_that_missing_cells_make():
    data = prepared(source_of(changed(numbered(100), 5, 2, float("nan"))))
    assert data.spec.shape == (5,)
    assert data.task.x_train.shape == (60, 5)
    assert data.task.x_train.isfinite().all()


def test_moving_a_task_to_a_device_keeps_it():
    task = of(source_of(numbered(100)))
    moved = task.to(torch.device("meta"))
    assert moved.x_train.device.type == moved.corrupted.device.type == "meta"
    assert (moved.num_classes, moved.knows_truth) == (3, True)
    assert task.x_train.device.type == "cpu"


@pytest.mark.parametrize("kind", ["flip_other", "uniform_all", "background", "pairflip"])
def test_damage_for_classes_does_not_suit_numbers(kind):
    with pytest.raises(UserError, match=f"noise_kind={kind} cannot damage the regression target .* shuffle, gauss"):
        of(source_of(numbered(100, 0), 0), noise_kind=kind)


def test_damage_for_numbers_does_not_suit_classes():
    with pytest.raises(UserError, match="noise_kind=gauss cannot damage the classification target"):
        of(source_of(numbered(100)), noise_kind="gauss")


def test_noise_on_numbers_moves_the_damaged_targets_alone():
    task = of(source_of(numbered(100, 0), 0), noise_kind="gauss", noise_rate=0.3)
    assert torch.equal(task.corrupted, task.y_train != task.y_true)
    assert task.corrupted.sum() == 18
    moved = (task.y_train - task.y_true)[task.corrupted]
    assert 0.3 < moved.std() < 1.5  # in standard deviations of the given targets, which the noise made wider


@pytest.mark.parametrize("classes", [0, 3])
def test_noise_on_inputs_leaves_the_targets_alone(classes):
    source = source_of(numbered(100, classes), classes)
    task, clean = (of(source, noise_kind="feature_gauss", noise_rate=rate) for rate in (0.3, 0.0))
    assert torch.equal(task.rows, clean.rows)
    assert torch.equal(task.y_train, task.y_true)
    assert torch.equal(task.x_true, clean.x_train)
    assert torch.equal((task.x_train != task.x_true).any(1), task.corrupted)
    assert task.corrupted.sum() == 18
    assert torch.equal(task.x_valid, clean.x_valid)
    assert of(source).x_true is None


def spare(rows=300, origin="public", **options):
    """Rows enough for some to be left over."""
    return of(source_of(numbered(rows), origin=origin), **({"train_size": 60, "test_size": 50} | options))


def test_what_is_left_of_the_pool_is_kept_aside_and_damaged_alike():
    task = spare(noise_rate=0.25)
    assert sizes(task) == (60, 60, 50)
    kept = ids(task.x_unseen)
    assert len(kept) == 130
    together = kept + ids(task.x_train) + ids(task.x_valid) + ids(task.x_test)
    assert sorted(together) == list(range(300))
    true = numbered(300).y[kept]
    assert torch.equal(task.corrupted_unseen, task.y_unseen != true)
    assert task.corrupted_unseen.sum() == 32  # floor(0.25 * 130)


def test_unseen_rows_of_an_official_split_come_from_its_training_rows():
    task = of(source_of(numbered(90), test=numbered(50, start=1000)), train_size=60)
    assert sorted(ids(task.x_train) + ids(task.x_unseen)) == list(range(90))


def test_at_most_a_thousand_are_kept_unless_more_are_asked_for():
    assert len(spare(1500).y_unseen) == 1000
    assert len(spare(1500, unseen_size=1010).y_unseen) == 1010
    assert len(spare(unseen_size=7).y_unseen) == 7
    assert len(spare(unseen_size=0).y_unseen) == 0


def test_digits_are_used_up():
    task = of(digits.load(name="digits", store=None))
    assert task.x_unseen.shape == (0, 64)
    assert len(task.y_unseen) == len(task.corrupted_unseen) == 0


def test_a_users_rows_are_kept_aside_on_request_only():
    assert len(spare(origin="user").y_unseen) == 0
    assert len(spare(origin="user", unseen_size=20).y_unseen) == 20
    with pytest.raises(UserError, match=r"method\.datamodule\.unseen_size=20 is more than the 0 rows"):
        of(source_of(numbered(100), origin="user"), unseen_size=20)


@pytest.mark.parametrize("scaling", ["minmax", "standard"])
def test_keeping_rows_aside_changes_nothing_for_the_others(scaling):
    without, some, more = (spare(unseen_size=n, scaling=scaling) for n in (0, 20, 100))
    for name in ("x_train", "y_train", "y_true", "corrupted", "rows", "x_valid", "y_valid", "x_test", "y_test"):
        assert torch.equal(getattr(without, name), getattr(more, name))
    assert torch.equal(some.x_unseen, more.x_unseen[:20])


def test_unseen_numbers_are_standardised_by_the_training_rows():
    whole = numbered(300, 0)
    task = of(source_of(whole, 0), train_size=60, test_size=50, noise_rate=0.2)
    true = whole.y[ids(task.x_unseen)]
    given = task.y_mean + task.y_scale * task.y_unseen
    same = ~task.corrupted_unseen
    torch.testing.assert_close(given[same], true[same], rtol=1e-4, atol=0)
    torch.testing.assert_close(given.sort().values, true.sort().values, rtol=1e-4, atol=0)  # exchanged among themselves


def test_the_spec_tells_how_targets_were_standardised():
    data = prepared(source_of(numbered(100, 0), 0))
    assert (data.spec.target_mean, data.spec.target_scale) == (data.task.y_mean, data.task.y_scale)
    assert data.spec.target_mean != 0
    classes = prepared(source_of(numbered(100))).spec
    assert (classes.target_mean, classes.target_scale) == (0, 1)


def test_the_scaler_made_the_rows():
    source = source_of(changed(numbered(100), 5, 2, float("nan")))
    task = of(source, scaling="minmax")
    again = task.scaler.transform(source.train.x[task.rows].numpy())
    assert torch.equal(torch.as_tensor(again), task.x_train)


def test_validation_rows_can_come_from_the_training_file():
    source = source_of(numbered(60), test=numbered(40, start=1000))
    sizes = {"train_size": 30, "validation_size": 20, "test_size": None, "scaling": "none"}
    task = ValuationData(source, seed=0, validation_from="train", **sizes).task
    ours, theirs = task.x_train[:, 0], task.x_valid[:, 0]
    assert len(theirs) == 20
    assert theirs.max() < 1000
    assert not set(ours.tolist()) & set(theirs.tolist())
    assert len(task.y_test) == 40, "the whole test file is left"
    with pytest.raises(UserError, match="validation_size=60 is more than the 59 rows"):
        ValuationData(source, seed=0, validation_from="train", validation_size=60)


def test_one_test_row_is_enough_where_validation_rows_are_given():
    task = of(source_of(numbered(60), test=numbered(1, start=1000), validation=numbered(20, start=2000)))
    assert (len(task.y_test), len(task.y_valid)) == (1, 20)
