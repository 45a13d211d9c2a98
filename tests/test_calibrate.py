"""Calibration: each fit against its definition, on vectors with a known spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echovec import InputError
from echovec.vector.calibrate import FITS, fit

RNG = np.random.default_rng(3)
DIM = 8
# A common part, correlated dimensions, and two that dominate.
MIX = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0] * [30, 9, 3, 2, 1, 0.8, 0.5, 0.1]
Z = (RNG.normal(size=(400, DIM)) @ MIX.T + RNG.normal(size=DIM) * 20).astype(np.float32)

OPTIONS = {"whiten": {"strength": 0.7, "shrinkage": 0.2}, "pca": {"dim": 3}}
KINDS = [f"kind {n % 4}" for n in range(len(Z))]


def applied(name, z=Z, kinds=KINDS, **options):
    return fit(name, Z, kinds=kinds, **options)(torch.from_numpy(z)).numpy().astype(np.float64)


@pytest.mark.parametrize("name", FITS)
def test_what_it_was_fitted_on_has_mean_zero(name):
    """Every calibration takes out the common part; without it the mean is far from zero."""
    assert np.abs(applied(name, **OPTIONS.get(name, {})).mean(axis=0)).max() < 1e-3
    assert np.abs(Z.mean(axis=0)).max() > 1


def test_center_scale_gives_each_dimension_unit_variance():
    """Each dimension by itself: standard deviation 1."""
    assert np.allclose(applied("center-scale").std(axis=0), 1, atol=1e-4)
    assert not np.allclose(applied("center").std(axis=0), 1, atol=0.5)


def naive_whiten(z, strength, shrinkage):
    centered = z - Z.astype(np.float64).mean(0)
    covariance = np.cov(Z.astype(np.float64).T, bias=True)
    mean = np.trace(covariance) / DIM
    shrunk = (1 - shrinkage) * covariance / mean + shrinkage * np.eye(DIM)
    # The matrix power by its definition, axis by axis of the singular value decomposition.
    u, s, vt = np.linalg.svd(shrunk)
    return centered @ (u @ np.diag(s ** (-strength / 2)) @ vt)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_whitening_is_the_power_of_the_shrunk_covariance(strength, shrinkage):
    """It equals a singular value decomposition of the covariance, drawn towards a ball."""
    ours = applied("whiten", strength=strength, shrinkage=shrinkage)
    scale = np.abs(ours).max()
    assert np.abs(ours - naive_whiten(Z, strength, shrinkage)).max() < 1e-4 * scale


def test_whitening_at_its_ends():
    """Strength 1 without shrinkage gives a ball; strength 0, or shrinkage 1, only centres."""
    ball = np.cov(applied("whiten", strength=1.0, shrinkage=0.0).T, bias=True)
    assert np.allclose(ball, np.eye(DIM) * ball[0, 0], atol=1e-3 * ball[0, 0])
    centered = applied("center")
    assert np.allclose(applied("whiten", strength=0.0), centered, atol=1e-3)
    assert np.allclose(applied("whiten", shrinkage=1.0), centered, atol=1e-3)


def test_remove_top_leaves_no_variance_along_the_strongest_axes():
    """Along the axes that an SVD finds strongest nothing is left, along the others everything."""
    _, _, axes = np.linalg.svd((Z - Z.mean(0)).astype(np.float64), full_matrices=False)
    along = (applied("remove-top", count=2) @ axes.T).std(axis=0)
    before = (applied("center") @ axes.T).std(axis=0)
    assert along[:2].max() < 1e-3
    assert np.allclose(along[2:], before[2:], rtol=1e-3)
    assert np.array_equal(applied("remove-top"), applied("remove-top", count=1))


def test_pca_keeps_the_strongest_axes():
    """The kept numbers are the SVD's strongest, up to sign; cosines of all axes are unchanged."""
    u, s, _ = np.linalg.svd((Z - Z.mean(0)).astype(np.float64), full_matrices=False)
    ours = applied("pca", dim=3)
    assert np.allclose(np.abs(ours), np.abs((u * s)[:, :3]), atol=1e-3)
    whole, centered = applied("pca", dim=DIM), applied("center")
    assert np.allclose(whole @ whole.T, centered @ centered.T, rtol=1e-4, atol=1e-2)


def test_one_set_of_vectors_gives_one_transform():
    """Signs and order are fixed: fitting again gives equal arrays, another set others."""
    for name in FITS:
        options = OPTIONS.get(name, {})
        assert fit(name, Z, kinds=KINDS, **options) == fit(name, Z.copy(), kinds=KINDS, **options)
        first = fit(name, Z[:200], kinds=KINDS[:200], **options)
        assert first != fit(name, Z, kinds=KINDS, **options)


@pytest.mark.parametrize("name", FITS)
def test_a_constant_dimension_is_centred_never_divided_by_zero(name):
    """A dead dimension comes out as zero and finite, for new vectors too."""
    dead = Z.copy()
    dead[:, 2] = 5.0
    transform = fit(name, dead, kinds=KINDS[: len(dead)], **OPTIONS.get(name, {}))
    new = dead[:3] + np.float32(0.5)
    assert torch.isfinite(transform(torch.from_numpy(new))).all()
    if name == "center-scale":
        assert transform(torch.from_numpy(dead))[:, 2].abs().max() < 1e-6
        assert torch.allclose(transform(torch.from_numpy(new))[:, 2], torch.tensor(0.5))


def test_few_texts_are_whitened_with_shrinkage_only():
    """Fewer vectors than dimensions: shrinkage carries it, without it both numbers are named."""
    few = Z[:5]
    assert torch.isfinite(fit("whiten", few)(torch.from_numpy(Z))).all()
    with pytest.raises(InputError, match="8 dimensions fitted on 5 vectors"):
        fit("whiten", few, shrinkage=0.0)


@pytest.mark.parametrize(
    ("name", "vectors", "options", "message"),
    [
        ("bleach", Z, {}, "unknown calibration 'bleach'; there are center, center-scale"),
        ("center", Z, {"dim": 3}, r"center takes no options, not \['dim'\]"),
        ("whiten", Z, {"strenght": 1}, r"takes \['strength', 'shrinkage'\], not \['strenght'\]"),
        ("center", Z[:1], {}, r"2 texts at least, got an array of \(1, 8\)"),
        ("center", Z[0], {}, r"2 texts at least, got an array of \(8,\)"),
        ("center", np.full((4, 2), np.nan), {}, "hold NaN"),
        ("center", np.ones((4, 2)), {}, "all 4 calibration vectors are the same"),
        ("pca", Z, {"dim": 9}, "dim=9: 400 vectors of 8 numbers have at most 8"),
        ("pca", Z[:4], {"dim": 4}, "dim=4: 4 vectors of 8 numbers have at most 3"),
        ("remove-top", Z, {"count": 0}, "count=0"),
        ("pca", Z, {"dim": 3.5}, "dim=3.5 is no whole number; give one"),
        ("pca", Z, {"dim": "3"}, "dim='3' is no whole number; give one"),
        ("remove-top", Z, {"count": 2.0}, "count=2.0 is no whole number; give one"),
        ("whiten", Z, {"strength": 2}, "strength=2; give a number from 0 to 1"),
        ("whiten", Z, {"shrinkage": 1.1}, "shrinkage=1.1; give a number from 0 to 1"),
    ],
)
def test_what_cannot_be_fitted_says_why(name, vectors, options, message):
    """Unknown names and options, too few or broken vectors are refused with the numbers."""
    with pytest.raises(InputError, match=message):
        fit(name, vectors, **options)


def of_kinds(shift=30.0):
    """Vectors of four kinds, each moved its own way in a plane of two axes; the axes."""
    source = np.random.default_rng(8)
    axes = np.linalg.qr(source.normal(size=(DIM, 2)))[0].T
    moved = np.array([[1.0, 0.0], [-1.0, 0.2], [0.3, 0.9], [-0.3, -1.1]]) * shift
    kinds = [f"kind {n % 4}" for n in range(400)]
    z = source.normal(size=(400, DIM)) + (moved @ axes)[np.arange(400) % 4]
    return z.astype(np.float32), kinds, axes


def test_remove_kinds_leaves_nothing_of_what_kinds_differ_by():
    """Means of the kinds coincide afterwards, and what is across their plane is untouched."""
    z, kinds, axes = of_kinds()
    out = fit("remove-kinds", z, kinds=kinds, count=2)(torch.from_numpy(z)).numpy()
    means = np.stack([out[np.array(kinds) == kind].mean(0) for kind in sorted(set(kinds))])
    assert np.abs(means - means.mean(0)).max() < 0.5
    assert np.abs(z.reshape(100, 4, DIM).mean(0) - z.mean(0)).max() > 5
    across = np.eye(DIM) - axes.T @ axes
    assert np.abs(out @ across - (z - z.mean(0)) @ across).max() < 0.5


def test_remove_kinds_is_a_naive_projection():
    """It equals a step along the main axis of the kinds' means, found by a power iteration."""
    z, kinds, _ = of_kinds(shift=2.0)
    means = np.stack([z[np.array(kinds) == kind].mean(0) for kind in sorted(set(kinds))])
    spread = (means - means.mean(0)).astype(np.float64)
    axis = np.ones(DIM)
    for _ in range(2000):
        axis = spread.T @ (spread @ axis)
        axis /= np.linalg.norm(axis)
    centred = z - z.mean(0)
    naive = centred - np.outer(centred @ axis, axis)
    ours = fit("remove-kinds", z, kinds=kinds, count=1)(torch.from_numpy(z)).numpy()
    assert np.abs(ours - naive).max() < 1e-4
    # The strongest axis of all vectors is another one: the control.
    top = fit("remove-top", z, count=1)(torch.from_numpy(z)).numpy()
    assert np.abs(top - naive).max() > 0.1


def test_remove_kinds_counts_each_kind_alike():
    """A kind of few texts moves the axes as much as one of many."""
    z, kinds, _ = of_kinds()
    few = [n for n in range(400) if kinds[n] != "kind 3" or n < 40]
    some = fit("remove-kinds", z[few], kinds=[kinds[n] for n in few], count=2)
    every = fit("remove-kinds", z, kinds=kinds, count=2)
    overlap = np.linalg.svd(some.directions_KD @ every.directions_KD.T)[1]
    assert overlap.min() > 0.999


def test_remove_kinds_says_what_it_lacks():
    """No kinds, one kind, too many axes, or kinds for other texts: each is named."""
    z, kinds, _ = of_kinds()
    for given, options, told in (
        (None, {}, "two kinds at least"),
        (["a"] * 400, {}, "all of 'a'"),
        (kinds, {"count": 2.0}, "count=2.0 is no whole number; give one"),
        (kinds, {"count": 4}, "4 kinds differ along 3 axes"),
        (kinds[:7], {}, "7 kinds for 400 texts"),
    ):
        with pytest.raises(InputError, match=told):
            fit("remove-kinds", z, kinds=given, **options)


@pytest.mark.parametrize("seed", range(3))
def test_axes_have_the_sign_of_their_largest_number(seed):
    """Libraries give an axis or its opposite; which one shall not decide the fingerprint."""
    z = np.random.default_rng(seed).normal(size=(60, DIM))
    kinds = [f"kind {n % 4}" for n in range(60)]
    for axes_KD in (
        fit("pca", z, dim=5).matrix_DE.T,
        fit("remove-top", z, count=5).directions_KD,
        fit("remove-kinds", z, kinds=kinds, count=3).directions_KD,
    ):
        assert (axes_KD.max(axis=1) == np.abs(axes_KD).max(axis=1)).all()


def test_of_each_hundred_dimensions_an_axis_is_removed_by_default():
    """As the paper has it; of fewer dimensions one."""
    for dim, count in ((50, 1), (199, 1), (230, 2)):
        z = np.random.default_rng(0).normal(size=(20, dim))
        assert fit("remove-top", z).directions_KD.shape == (count, dim)


def test_kinds_that_do_not_differ_have_nothing_removed():
    """Of the same texts in two files, or three kinds of which two are alike, no axis is made up."""
    z, _, _ = of_kinds()
    twice = np.concatenate([z, z[::-1]])
    two, three = ["a"] * 400 + ["b"] * 400, ["a"] * 200 + ["b"] * 200 + ["c"] * 400
    with pytest.raises(InputError, match="2 kinds of text differ along no axes"):
        fit("remove-kinds", twice, kinds=two, count=1)
    twice[400:] = z
    twice[:200], twice[200:400] = z[:200], z[:200][::-1]
    with pytest.raises(InputError, match="3 kinds of text differ along 1 axes"):
        fit("remove-kinds", twice, kinds=three, count=2)
    removed = fit("remove-kinds", twice, kinds=three, count=1).directions_KD[0]
    between = z.mean(axis=0) - z[:200].mean(axis=0)
    assert abs(removed @ between) == pytest.approx(np.linalg.norm(between), rel=1e-5)
