"""Float32 or bfloat16: what is faster differs by machine, by a factor of two one way and of ten the other."""

import time
from collections.abc import Callable

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass: bfloat16 where that is safe, or with the precision "no" float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def contiguous_skips(g_a: torch.nn.Module) -> None:
    """Keep the strided 1x1 layers of ``g_a`` out of channels-last order.

    In it, and in bfloat16 on a CPU, the backward pass of torch 2.14 corrupts the heap in those of 3 to 16 channels.
    """
    for name, layer in g_a.named_modules():
        if name.endswith("skip"):
            layer.register_forward_pre_hook(lambda layer, inputs: inputs[0].contiguous())


def faster_precision(loss: Callable[[], Tensor], device: torch.device) -> str:
    """ "no" or "bf16": in which a forward and a backward pass of ``loss`` takes less time; a line tells both times.

    The gradients that this leaves are the caller's to clear.
    """
    seconds = {precision: seconds_of_step(loss, device, precision) for precision in ("no", "bf16")}
    faster = "bf16" if seconds["bf16"] < seconds["no"] else "no"
    print(f"precision {faster}: a step takes {seconds['no']:.3g} s in float32, {seconds['bf16']:.3g} s in bfloat16")
    return faster


def seconds_of_step(loss: Callable[[], Tensor], device: torch.device, precision: str) -> float:
    """How long a forward and a backward pass takes, after one that warms up."""
    for _ in range(2):
        start = time.perf_counter()
        with autocast(device, precision):
            value = loss()
        value.backward()
        torch.zeros(1, device=device).item()  # waits for a GPU
        seconds = time.perf_counter() - start
    return seconds
