"""The buffer of chapters 6 and 7: two arrays of int16 behind eight integers."""

import struct

import numpy as np
import torch
from torch import Tensor


def pack(y_hat: Tensor, z_hat: Tensor) -> bytes:
    """Eight little-endian int32 (the shapes of y_hat and z_hat, each (1, C, H, W)), then both arrays as int16.

    The cast drops whatever follows the decimal point: give it integers.
    """
    header = struct.pack("<8i", *y_hat.shape, *z_hat.shape)
    return header + b"".join(a.numpy().astype("<i2").tobytes() for a in (y_hat, z_hat))


def unpack(buffer: bytes) -> tuple[Tensor, Tensor]:
    """The two arrays of :func:`pack` as float32; ValueError for a buffer that is cut short or has absurd shapes."""
    if len(buffer) < 32:
        raise ValueError(f"the buffer is cut short: {len(buffer)} bytes, the header alone has 32")
    sides = struct.unpack("<8i", buffer[:32])
    shapes = sides[:4], sides[4:]
    if min(sides) < 1 or sides[0] != 1 or sides[4] != 1:
        raise ValueError(f"the buffer's header is damaged: shapes {shapes[0]} and {shapes[1]}")
    counts = [shape[1] * shape[2] * shape[3] for shape in shapes]
    if len(buffer) != 32 + 2 * sum(counts):
        raise ValueError(f"the buffer has {len(buffer)} bytes, its shapes need {32 + 2 * sum(counts)}")
    values = torch.from_numpy(np.frombuffer(buffer, "<i2", offset=32).astype(np.float32))
    return values[: counts[0]].reshape(shapes[0]), values[counts[0] :].reshape(shapes[1])
