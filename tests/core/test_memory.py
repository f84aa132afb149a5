"""Telling that memory ran out from all else that can go wrong."""

import onnxruntime
import pytest
import torch

from napari_cellda.core.memory import available_memory, ran_out_of_memory

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
