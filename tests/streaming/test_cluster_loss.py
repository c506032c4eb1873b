"""Every sign of a lost cluster becomes one error, and nothing else does."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError

import pytest

from smartsplat_large.errors import ClusterLostError
from smartsplat_large.streaming.cluster_loss import loss_named

distributed = pytest.importorskip("distributed")


@pytest.mark.parametrize(
    "sign",
    [
        CancelledError("work-1 cancelled for reason: lost dependencies.\nmore of it"),
        TimeoutError(),
        distributed.comm.CommClosedError("in <TCP>: Stream is closed"),
        distributed.client.ClosedClientError("Client is closed"),
    ],
    ids=lambda sign: type(sign).__name__,
)
def test_a_sign_of_loss_is_named(sign: Exception) -> None:
    with pytest.raises(ClusterLostError) as caught, loss_named("tcp://there:8786"):
        raise sign
    reason = str(sign).partition("\n")[0] or "TimeoutError"
    assert caught.value.message == f"the dask cluster at tcp://there:8786 is lost ({reason})"
    assert caught.value.exit_code == 5
    assert "--scheduler" in (caught.value.hint or "")


def test_other_errors_and_threads_are_left_alone() -> None:
    with pytest.raises(ValueError, match="mine"), loss_named("tcp://there:8786"):
        raise ValueError("mine")
    with pytest.raises(CancelledError), loss_named(None):
        raise CancelledError


def test_dask_is_quiet_meanwhile_and_as_before_afterwards() -> None:
    logger = logging.getLogger("distributed.client")
    before = logger.level
    with loss_named("tcp://there:8786"):
        assert not logger.isEnabledFor(logging.ERROR)
    assert logger.level == before
