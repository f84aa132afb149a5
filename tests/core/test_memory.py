"""Telling that memory ran out from all else that can go wrong."""

import onnxruntime
import pytest
import torch

from napari_cellda.core.memory import _groups_room, available_memory, ran_out_of_memory

Fail = onnxruntime.capi.onnxruntime_pybind11_state.Fail
TORCH = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
WINDOWS = "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: "
CUDA = "CUDA error: out of memory\nCUDA kernel errors might be ..."
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
MPS = (
    "MPS backend out of memory (MPS allocated: 5.50 GB, other allocations: 14.76 GB, max 20.40 GB)"
)
ONNX = "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 9"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA"),
        RuntimeError(TORCH),
        RuntimeError(WINDOWS),
        RuntimeError(CUBLAS),
        getattr(torch, "AcceleratorError", RuntimeError)(CUDA),
        RuntimeError(MPS),
        Fail(ONNX),
    ],
    ids=lambda error: type(error).__name__,
)
def test_running_out_is_known_by_its_kinds(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("expected a contiguous memory format"),
        ValueError(TORCH),
        Fail("[ONNXRuntimeError] : 1 : FAIL : the model is damaged"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_faults_are_not_taken_for_it(error):
    assert not ran_out_of_memory(error)


def test_something_is_free():
    assert 2**20 < available_memory() < 2**50


def write_group(root, path, **files):
    """Write the files ``memory.<name>`` of a control group."""
    folder = root / "sys" / "fs" / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def be_in(root, lines):
    (root / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "self" / "cgroup").write_text(lines)


def test_a_containers_limit_counts(tmp_path):
    be_in(tmp_path, "0::/\n")
    assert _groups_room(tmp_path) is None
    write_group(tmp_path, "", max=5000, current=2000)
    assert _groups_room(tmp_path) == 3000
    # files that were read count as used, and are given back when memory gets short
    stat = "anon 800\nfile 1200\nshmem 100\ninactive_file 900\nactive_file 200"
    write_group(tmp_path, "", stat=stat)
    assert _groups_room(tmp_path) == 4100
    write_group(tmp_path, "", max="max")
    assert _groups_room(tmp_path) is None


def test_the_limit_of_a_clusters_job_counts_though_it_is_set_above(tmp_path):
    be_in(tmp_path, "0::/slurm/job_5/step_0/task_1\n")
    write_group(tmp_path, "slurm/job_5/step_0/task_1", max="max", current=100)
    write_group(tmp_path, "slurm/job_5/step_0", max=9000, current=1000)
    write_group(tmp_path, "slurm/job_5", max=5000, current=2000)
    write_group(tmp_path, "slurm/job_6", max=1000, current=900)  # somebody else's
    assert _groups_room(tmp_path) == 3000


def test_the_first_version_of_control_groups_has_a_tree_for_memory(tmp_path):
    be_in(tmp_path, "9:cpu,cpuacct:/slurm/job_5\n4:memory:/slurm/job_5\n0::/\n")
    write_group(tmp_path, "memory", limit_in_bytes=9223372036854771712, usage_in_bytes=7000)
    write_group(tmp_path, "memory/slurm/job_5", limit_in_bytes=5000, usage_in_bytes=2000)
    stat = "active_file 10\ninactive_file 10\ntotal_active_file 100\ntotal_inactive_file 200"
    write_group(tmp_path, "memory/slurm/job_5", stat=stat)
    assert _groups_room(tmp_path) == 3300
    be_in(tmp_path, "4:memory:/docker/3f9a\n")  # within, the container's own is the tree's root
    write_group(tmp_path, "memory", limit_in_bytes=8000)
    assert _groups_room(tmp_path) == 1000
