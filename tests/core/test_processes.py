"""What one of several processes tells when another one has ended."""

import pytest
from torch import distributed

from napari_cellda.core.errors import UserError
from napari_cellda.core.processes import tell_lost_process

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:26216"


@pytest.mark.parametrize(
    "error",
    [RuntimeError(GLOO), distributed.DistBackendError("NCCL communicator was aborted on rank 0.")],
    ids=["gloo", "nccl"],
)
def test_a_lost_process_is_told_in_a_sentence(monkeypatch, error):
    with pytest.raises(RuntimeError), tell_lost_process():
        raise error  # with one process it is what it seems
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="Another of the 2 processes"), tell_lost_process():
        raise error


def test_other_faults_of_several_processes_stay_faults(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shape"), tell_lost_process():
        raise RuntimeError("a shape that does not fit")
