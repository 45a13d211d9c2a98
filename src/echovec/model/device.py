"""Device: arrays to where the model is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array on the device.

    To CUDA it goes through pinned memory, so the call does not wait for what the device has still
    to do, and one thread can ask for the next batch while another's is computed.
    """
    tensor = torch.from_numpy(np.require(array, requirements="W"))  # another process's are not
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )
