"""SOAP for convolution kernels, in as few multiply-adds as it takes.

SOAP (Vyas et al., ICLR 2025) is Adam in the eigenbasis of a kernel's gradients, in which its steps hinder each other
less.  The implementation in ``pytorch_optimizer`` took longer than the forward and the backward pass together (0.63 s
and 0.50 s on one core); this one turns output and input channels but not taps, keeps the first moment in the turned
basis, multiplies in bfloat16, and looks at every fourth gradient for the basis.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    """Adam in a slowly turning eigenbasis, for kernels (outputs, inputs, height, width).

    The Gram matrices of outputs and inputs take in every ``look``-th gradient; every ``turn`` steps one round of power
    iteration moves the bases after them.
    """

    def __init__(self, params: Iterable[Any], lr: float = 3e-3, betas: tuple[float, float] = (0.95, 0.95), eps: float = 1e-8, look: int = 4, turn: int = 12,
                 precision: torch.dtype = torch.bfloat16):  # fmt: skip
        super().__init__(params, {"lr": lr})
        self.betas, self.eps, self.look, self.turn, self.precision = betas, eps, look, turn, precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self.move(kernel, group["lr"])

    def move(self, kernel: Tensor, rate: float) -> None:
        """One step of one kernel; the first only learns the basis."""
        assert kernel.grad is not None
        gradient = kernel.grad.permute(0, 2, 3, 1)  # outputs, taps, inputs: both ends are then plain matrix products
        state = self.state[kernel]
        if not state:
            state["step"] = 0
            state["first"] = gradient.new_zeros(gradient.shape)
            state["second"] = gradient.new_zeros(gradient.shape)
            state["grams"] = [self.gram(gradient, side) for side in (0, 1)]
            state["bases"] = [torch.linalg.eigh(gram).eigenvectors.flip(1).contiguous() for gram in state["grams"]]
            return
        state["step"] += 1
        step, (beta1, beta2) = state["step"], self.betas
        if step % self.look == 0:
            for side, gram in enumerate(state["grams"]):
                gram.lerp_(self.gram(gradient, side), 1 - beta2**self.look)
        if step % self.turn == 0:
            self.turn_bases(state)
        turned = self.rotate(gradient, state["bases"])
        state["first"].lerp_(turned, 1 - beta1)
        state["second"].lerp_(turned.square(), 1 - beta2)
        deviation = state["second"].sqrt().div_((1 - beta2**step) ** 0.5).add_(self.eps)
        update = self.rotate(state["first"] / deviation, [basis.T for basis in state["bases"]])
        kernel.add_(update.permute(0, 3, 1, 2), alpha=-rate / (1 - beta1**step))

    def gram(self, gradient: Tensor, side: int) -> Tensor:
        """Inner products of the gradients of each two outputs (side 0) or inputs (side 1)."""
        rows = gradient.flatten(1) if side == 0 else gradient.flatten(0, 2).T
        rows = rows.to(self.precision)
        return (rows @ rows.T).float()

    def rotate(self, tensor: Tensor, bases: list[Tensor]) -> Tensor:
        """The tensor (outputs, height, width, inputs) in new coordinates of outputs and inputs."""
        outputs, inputs = (basis.to(self.precision) for basis in bases)
        tensor = tensor.to(self.precision)
        turned = (outputs.T @ tensor.flatten(1)).view(-1, tensor.shape[3]) @ inputs
        return turned.float().view(tensor.shape)

    def turn_bases(self, state: dict) -> None:
        """One round of power iteration towards the eigenbases of the Gram matrices; both moments go along."""
        orders, turns = [], []
        for side, (gram, basis) in enumerate(zip(state["grams"], state["bases"])):
            product = gram @ basis
            order = (basis * product).sum(0).argsort(descending=True)
            new = torch.linalg.qr(product[:, order]).Q
            turns.append(basis.T @ new)
            orders.append(order)
            state["bases"][side] = new
        state["first"] = self.rotate(state["first"], turns)
        # As in the paper, the second moment follows the order of the axes and forgets their turn by itself.
        state["second"] = state["second"][orders[0]][..., orders[1]]
