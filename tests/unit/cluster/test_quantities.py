"""Sizes as people write them."""

from __future__ import annotations

import pytest

from cluster.errors import Usage
from cluster.quantities import size_bytes


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("512K", 524_288), ("64M", 67_108_864), ("2g", 2 << 30)]
)
def test_sizes(text, size):
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "0", "-1", "1.5M", "64MB", "x"])
def test_what_is_no_size(text):
    with pytest.raises(Usage, match="is not a size"):
        size_bytes(text)
