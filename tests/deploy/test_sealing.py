"""The container of snapshots and updates is safetensors, to the byte."""

import numpy as np
from safetensors.numpy import load, save

from headwater.deploy._sealing import pack, views

DTYPES = ("?", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")


def arrays():
    found = {f"{k * 7 % 12}/é {d}": np.arange(k + 3).astype(d) for k, d in enumerate(DTYPES)}
    shapes = {"one": np.array(3), "none": np.zeros((0, 5)), "many": np.ones((3, 5), np.float32)}
    return {**found, **shapes}


def test_a_container_is_what_the_library_writes():
    metadata = {"document": 'a "quoted" é\n'}

    assert pack(arrays(), metadata) == save(arrays(), metadata=metadata)


def test_what_the_library_writes_is_read_without_a_copy():
    container = save(arrays(), metadata={"a": "b"})

    found, metadata = views(container)

    assert metadata == {"a": "b"}
    assert found.keys() == load(container).keys()
    for name, array in arrays().items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert not found[name].flags.owndata
