"""Buffers that are filled anew for every block: memory that was in use a moment ago is still in the core's cache."""

import threading

import torch
from torch import Tensor


class Scratch(threading.local):
    """Each thread's buffers, by name and dtype."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, num_elements: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """Return a flat tensor of any content; what the thread took under this name before is overwritten."""
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < num_elements:
            buffer = self._buffers[name, dtype] = torch.empty(num_elements, dtype=dtype, device=device)
        return buffer if buffer.numel() == num_elements else buffer[:num_elements]
