"""Mapped files: what was written stays, and the pages do not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_cellda.core.mapped import CAN_LET_GO, MappedArray


def resident_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ("RssFile", "RssShmem")) / 1024


@pytest.mark.skipif(not (CAN_LET_GO and sys.platform == "linux"), reason="needs Linux")
def test_a_pass_over_a_large_file_holds_one_part_of_it(tmp_path):
    array = MappedArray(tmp_path / "a", np.uint8, "w+", shape=(96, 2**20))
    before = resident_megabytes()
    for row in range(96):
        array[row] = row
        assert resident_megabytes() - before < 8
    for row in range(96):
        assert int(array[row].max()) == row
        assert resident_megabytes() - before < 8
    kept = np.memmap(tmp_path / "a", np.uint8, "r", shape=(96, 2**20))
    assert (kept == np.arange(96)[:, None]).all()
    assert resident_megabytes() - before > 64  # the plain one holds all of it


def test_views_and_results_are_those_of_a_plain_memory_map(tmp_path):
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    array = MappedArray(tmp_path / "a", np.float32, "w+", shape=(5, 6, 7))
    array[...] = values
    array[1, 2:4] += 1
    values[1, 2:4] += 1
    part = array.reshape(30, 7)[3:9, ::2]
    other = array[0]  # another part is asked for, and the first is still right
    np.testing.assert_array_equal(part, values.reshape(30, 7)[3:9, ::2])
    np.testing.assert_array_equal(other, values[0])
    assert array[4, 5, 6] == values[4, 5, 6]
    assert array.sum() == pytest.approx(values.sum(), rel=1e-5)


def test_a_copy_on_write_keeps_what_was_written(tmp_path):
    (tmp_path / "a").write_bytes(bytes(8192))
    array = MappedArray(tmp_path / "a", np.uint8, "c")
    array[5] = 9
    assert array[5] == 9
    assert (tmp_path / "a").read_bytes() == bytes(8192)
