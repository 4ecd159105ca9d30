"""Products of bytes by blocks of sixteen items, beside those of numpy, with and without VNNI."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from headwater.model._products import (
    NOTHING,
    QUAD,
    SIDE,
    largest_of_blocks,
    products_of_block,
    quads,
    shown_of,
)

PLAIN = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
"""Has numba compile for a processor that has nothing but the basics."""


def compare_with_numpy(n_users, n_blocks, n_groups):
    rng = np.random.default_rng(n_users)
    codes = rng.integers(256, size=(n_blocks, n_groups, SIDE, QUAD)).astype(np.uint8)
    users = rng.integers(-128, 128, (n_users, n_groups * QUAD)).astype(np.int8)
    codes[0], users[0] = 255, -128
    of_items = codes.transpose(0, 2, 1, 3).reshape(n_blocks, SIDE, -1).astype(np.int64)
    expected = np.einsum("ksd,bd->bks", of_items, users.astype(np.int64))
    withheld = rng.random(SIDE * n_blocks - 3) < 0.3
    withheld[: SIDE * (n_blocks // 2)] = True
    expected.reshape(n_users, -1)[:, np.flatnonzero(withheld)] = NOTHING
    expected.reshape(n_users, -1)[:, len(withheld) :] = NOTHING
    shown = shown_of(withheld)
    found = np.zeros((n_users, n_blocks), np.int32)
    largest_of_blocks(codes, shown, quads(users), found)
    np.testing.assert_array_equal(found, expected.max(axis=2))
    for user in range(n_users):
        products = np.zeros(SIDE, np.int32)
        products_of_block(codes, shown, n_blocks - 1, quads(users), user, products)
        np.testing.assert_array_equal(products, expected[user, -1])


@pytest.mark.parametrize("n_users", [1, 3, 4, 5, 11])
@pytest.mark.parametrize(("n_blocks", "n_groups"), [(1, 1), (7, 4), (40, 10), (3, 17)])
def test_they_are_those_of_numpy(n_users, n_blocks, n_groups):
    compare_with_numpy(n_users, n_blocks, n_groups)


def test_without_the_instruction_they_are_the_same():
    check = """
from numba.core.registry import cpu_target
from tests.model.test_products import compare_with_numpy
assert "+avx512vnni" not in cpu_target.target_context.codegen().magic_tuple()[2]
compare_with_numpy(6, 5, 3)
"""
    subprocess.run([sys.executable, "-c", check], check=True, env=os.environ | PLAIN)
