"""Transforms against numpy, their widths, and arrays compared by content."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from echovec import InputError, RecipeError
from echovec.vector.transform import (
    TRANSFORMS,
    Center,
    Linear,
    Normalize,
    Remove,
    Scale,
    Truncate,
)

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=6).astype(np.float32)
SCALE = RNG.uniform(0.5, 2, size=6).astype(np.float32)
AXES = np.linalg.qr(RNG.normal(size=(6, 2)))[0].T.astype(np.float32)
MATRIX = RNG.normal(size=(6, 4)).astype(np.float32)
Z = RNG.normal(size=(5, 6)).astype(np.float32)

EACH = {
    "truncate": (Truncate(3), lambda z: z[:, :3]),
    "normalize": (Normalize(), lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)),
    "center": (Center(MEAN), lambda z: z - MEAN),
    "scale": (Scale(MEAN, SCALE), lambda z: (z - MEAN) * SCALE),
    "remove": (
        Remove(MEAN, AXES),
        lambda z: (z - MEAN) - sum(np.outer((z - MEAN) @ axis, axis) for axis in AXES),
    ),
    "linear": (Linear(MEAN, MATRIX), lambda z: (z - MEAN) @ MATRIX),
}


def test_every_kind_is_tested():
    """The table of transforms and the table of this file have the same rows."""
    assert list(EACH) == list(TRANSFORMS)
    assert all(type(EACH[name][0]) is row for name, row in TRANSFORMS.items())


@pytest.mark.parametrize("name", EACH)
def test_transforms_equal_numpy_alone_and_in_a_batch(name):
    """Each does what its name says, row by row, and says how wide its vectors are."""
    transform, by_hand = EACH[name]
    z_SE = transform(torch.from_numpy(Z))
    assert np.allclose(z_SE.numpy(), by_hand(Z), atol=1e-5)
    alone = torch.cat([transform(torch.from_numpy(row[None])) for row in Z])
    assert torch.allclose(alone, z_SE, atol=1e-6)
    assert transform.dim_out(6) == z_SE.shape[1]
    assert not np.allclose(z_SE.numpy()[:, :3], Z[:, :3], atol=1e-3) or name == "truncate"


@pytest.mark.parametrize("name", EACH)
def test_gradients_flow_through_transforms(name):
    """Training goes through a transform as it does through pooling."""
    z_SD = torch.from_numpy(Z).double().requires_grad_()
    assert torch.autograd.gradcheck(EACH[name][0], (z_SD,))


@pytest.mark.parametrize("name", ["truncate", "center", "scale", "remove", "linear"])
def test_vectors_of_another_width_are_refused(name):
    """A transform that cannot take a width says both numbers before any text is embedded."""
    with pytest.raises(InputError, match=r"vectors of \d+ numbers"):
        EACH[name][0].dim_out(2)


def test_a_dimension_that_is_no_whole_number_is_refused():
    """A slice takes whole numbers only; what numpy counts with is one."""
    with pytest.raises(InputError, match=r"dim=2\.5 is no whole number; give one"):
        Truncate(2.5)(torch.zeros(1, 3))
    assert Truncate(np.int64(2))(torch.zeros(1, 3)).shape == (1, 2)


def test_a_zero_vector_stays_zero():
    """Normalising divides nothing by zero."""
    assert Normalize()(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["center", "scale", "remove", "linear"])
def test_arrays_are_compared_by_content(name):
    """Equal numbers are equal transforms with equal hashes; one changed number is another."""
    transform = EACH[name][0]
    again = type(transform)(*(np.array(v, dtype=np.float64) for v in vars(transform).values()))
    assert again == transform
    assert hash(again) == hash(transform)
    arrays = [v.copy() for v in vars(transform).values()]
    arrays[-1].flat[0] += 1
    assert type(transform)(*arrays) != transform
    assert transform != Normalize()
    with pytest.raises(FrozenInstanceError):
        transform.mean_D = MEAN


def test_an_array_is_the_transform_s_own():
    """What its maker does to the array afterwards changes no vector and no hash."""
    mean = np.zeros(3, np.float32)
    transform = Center(mean)
    mean += 1
    assert transform == Center(np.zeros(3))
    mean.flags.writeable = False
    assert Center(mean)(torch.ones(1, 3)).tolist() == [[0.0, 0.0, 0.0]]  # and torch warns not


def test_arrays_become_float32_and_must_be_finite():
    """float64 from fitting is narrowed once; NaN never enters a recipe."""
    assert Center(np.zeros(3)).mean_D.dtype == np.float32
    with pytest.raises(RecipeError, match=r"Center\.mean_D holds NaN"):
        Center(np.array([1.0, np.nan]))
