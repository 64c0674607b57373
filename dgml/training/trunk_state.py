"""The state of a trunk: a codec, its average, its optimizers, and the recipe they follow."""

import io
import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgml.files import atomic_write
from dgml.model import DeepAnchor
from dgml.training.data import HELD_OUT_EVERY, Patches, center_crop
from dgml.training.linear_start import linear_start, start_entropy_model, start_hyperprior
from dgml.training.precision import contiguous_skips
from dgml.training.soap import SOAP
from dgml.training.trunk_loss import losses
from dgml.training.whitening import Moments, input_moments, whitened

WIDTHS = (32, 64, 128, 192)
SOAP_RATE, ADAM_RATE, QUANTILES_RATE = 3e-3, 1e-3, 1e-2
DENSITY = 10  # times the rate of other parameters for the densities of z: where they lag, z costs what it need not
WARM_UP = 100  # steps of rising rate
AVERAGE = 0.999  # of the averaged weights, how much stays at each step
START_PATCHES, FIT_PATCHES = 64, 16  # from which the linear start learns, and the scale of the entropy model
NORMS = 500  # recent gradient norms, of which a percentile clips


@dataclass
class Recipe:
    """What is chosen in a run; a resume may choose otherwise."""

    lmbda: float = 0.0483
    widths: tuple[int, int, int, int] = WIDTHS
    seed: int = 0
    patch: int = 256
    batch: int = 2
    frozen: int = 400  # first steps, in which only the entropy model learns: they cost a third
    transform_rate: float = 0.06  # share of the full rates for g_a and g_s, at first ...
    transform_rate_end: float = 0.06  # ... and after so many steps:
    transform_rate_rise: int = 3000
    entropy_rate: float = 0.6
    clip: float = 0.95  # below 1 a percentile of recent norms, else a norm
    offset: str = "half"
    floor: float = 0.0
    z_free: int = 0  # steps in which the bits of z count nothing
    blind: int = 0  # steps in which half of a batch is predicted without its context
    begin: int = 0  # of a branch: its first step, and how many follow, in which the rates fall to zero
    cooldown: int = 0


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float = math.inf
    norms: list[float] = field(default_factory=list)


class Run:
    """A codec, its average, its optimizers and where they stand: what a state holds.

    It lies on a GPU if there is one.
    """

    def __init__(self, recipe: Recipe, photographs: list[np.ndarray]):
        self.recipe, self.progress = recipe, Progress()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        seen = [p for i, p in enumerate(photographs) if i % HELD_OUT_EVERY]
        self.patches = Patches(seen, recipe.seed, recipe.patch, self.device)
        self.held_out = [center_crop(p).to(self.device) for p in photographs[::HELD_OUT_EVERY]]
        torch.manual_seed(recipe.seed)
        self.codec = pyramid(recipe.widths).to(self.device)
        contiguous_skips(self.codec.g_a)
        self.average = deepcopy(self.codec)
        self.optimizers = make_optimizers(self.codec)
        self.inputs: Moments = {}
        self.shrink: dict[str, float] = {}
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def start(self) -> None:
        """A fresh codec's linear start."""
        torch.manual_seed(self.recipe.seed)  # the forward pass that measures inputs draws noise
        x = self.patches.batch(0, START_PATCHES)
        linear_start(self.codec, x, self.recipe.lmbda)
        start_entropy_model(self.codec, x[:FIT_PATCHES])
        self.codec.context_prediction.weight.data *= self.codec.context_prediction.mask
        self.inputs = input_moments(self.codec, x[:FIT_PATCHES])
        self.shrink = input_scales(self.codec, x[:FIT_PATCHES])
        self.average.load_state_dict(self.codec.state_dict())

    @torch.no_grad()
    def renew_hyperprior(self) -> None:
        """Begin anew with h_a, h_s and the densities of z, which nothing reads yet; the optimizers forget them."""
        x = self.patches.batch(0, FIT_PATCHES)
        reader = self.codec.entropy_parameters[0]
        said = self.codec.h_s(self.codec.h_a(self.codec.g_a(x))).mean((0, 2, 3))
        reader.bias += reader.weight[:, : len(said), 0, 0] @ said
        reader.weight[:, : len(said)] = 0
        torch.manual_seed(self.recipe.seed)
        fresh = pyramid(self.recipe.widths).to(self.device)
        renewed = [getattr(self.codec, name) for name in ("h_a", "h_s", "entropy_bottleneck")]
        for module, new in zip(renewed, (fresh.h_a, fresh.h_s, fresh.entropy_bottleneck)):
            torch.nn.Module.load_state_dict(module, new.state_dict())
        start_hyperprior(self.codec, x)
        forgotten = {p for module in renewed for p in module.parameters()} | {reader.weight, reader.bias}
        for slow, fast in zip(self.average.parameters(), self.codec.parameters()):
            if fast in forgotten:
                slow.copy_(fast)
        for optimizer in self.optimizers:
            for parameter in forgotten:
                optimizer.state.pop(parameter, None)

    def load(self, saved: dict[str, Any]) -> None:
        """Take over what :func:`read_trunk` read of another run's state, but for its recipe."""
        # compressai's own method would ask for tables that are not built yet.
        torch.nn.Module.load_state_dict(self.codec, saved["codec"])
        torch.nn.Module.load_state_dict(self.average, saved["average"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        self.progress, self.shrink = Progress(**saved["progress"]), saved["shrink"]
        self.inputs = {name: tuple(v.to(self.device) for v in pair) for name, pair in saved["inputs"].items()}

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = io.BytesIO()
        torch.save({"recipe": asdict(self.recipe), "progress": asdict(self.progress), "shrink": self.shrink,
                    "inputs": self.inputs, "codec": self.codec.state_dict(),
                    "average": self.average.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}, state)  # fmt: skip
        atomic_write(path, state.getvalue())

    def step(self) -> dict[str, float]:
        """One step of all optimizers; a gradient that is no number is skipped and counted."""
        recipe, progress = self.recipe, self.progress
        self.set_rates()
        if progress.step == recipe.frozen:
            progress.norms = []  # those of the entropy model alone are smaller
        x = self.patches.batch(progress.step, recipe.batch).contiguous(memory_format=torch.channels_last)
        # The noise depends on the step, not on the history, so a resumed run draws what it would have drawn.
        torch.manual_seed(int(np.random.default_rng((recipe.seed, progress.step, 1)).integers(2**63)))
        z_weight = 0.0 if progress.step < recipe.z_free else 1.0
        with torch.autocast(self.device.type, torch.bfloat16):
            row = losses(self.codec, x, recipe.lmbda, z_weight, recipe.offset, recipe.floor, self.frozen(),
                         progress.step < recipe.blind)  # fmt: skip
            loss = row["loss"] + self.codec.entropy_bottleneck.loss()
        self.codec.zero_grad()
        loss.backward()
        row["norm"] = torch.nn.utils.clip_grad_norm_(self.codec.parameters(), self.limit())
        if torch.isfinite(row["norm"]):
            progress.norms = [*progress.norms[1 - NORMS :], float(row["norm"])]
            with whitened(self.codec, self.inputs):
                for optimizer in self.optimizers:
                    optimizer.step()
        else:
            progress.skipped += 1
        self.move_average()
        progress.step += 1
        return {key: float(value.detach()) for key, value in row.items()}

    def frozen(self) -> bool:
        """Whether the transforms stand still."""
        return self.progress.step < self.recipe.frozen

    def limit(self) -> float:
        """The gradient norm above which a step is shortened."""
        if self.recipe.clip >= 1:
            return self.recipe.clip
        return float(np.quantile(self.progress.norms, self.recipe.clip)) if self.progress.norms else 1.0

    def set_rates(self) -> None:
        """The learning rates of this step; that of the quantiles of z, with the last optimizer, is constant."""
        recipe, step = self.recipe, self.progress.step
        moved = max(0, step - recipe.frozen)  # steps of the transforms
        risen = min(1.0, moved / recipe.transform_rate_rise) if recipe.transform_rate_rise else 1.0
        shares = {"transforms": recipe.transform_rate + risen * (recipe.transform_rate_end - recipe.transform_rate),
                  "entropy": recipe.entropy_rate}  # fmt: skip
        shares["transforms"] *= min(1.0, (moved + 1) / WARM_UP)
        shares["entropy"] *= min(1.0, (step + 1) / WARM_UP)
        factor = 1.0
        if recipe.cooldown:
            factor = 1 - math.sqrt(min(1.0, (step - recipe.begin) / recipe.cooldown))
        for optimizer, own in zip(self.optimizers[:-1], self.rates):
            for group, rate in zip(optimizer.param_groups, own):
                group["lr"] = rate * factor * shares[group["part"]] / self.shrink.get(group["name"], 1.0)
                if group["name"].startswith("entropy_bottleneck"):
                    group["lr"] *= DENSITY
        self.optimizers[-1].param_groups[0]["lr"] = QUANTILES_RATE  # an older state may hold another

    @torch.no_grad()
    def move_average(self) -> None:
        """Move the averaged weights a little towards the present ones, further in the first steps of a run."""
        steps = self.progress.step - self.recipe.begin
        stays = min(AVERAGE, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.codec.parameters()), 1 - stays)


def read_trunk(path: Path) -> dict[str, Any]:
    """What :meth:`Run.save` wrote; ValueError where a part is missing or unreadable."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        lacking = {"recipe", "progress", "shrink", "inputs", "codec", "average", "optimizers"} - saved.keys()
    except Exception as error:  # torch has many, and long ones
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from None
    if lacking:
        raise ValueError(f"{path} is no state of a trunk: it lacks {min(lacking)}")
    return saved


def make_optimizers(codec: DeepAnchor) -> list[torch.optim.Optimizer]:
    """SOAP for the convolution kernels, Adam for the rest, and a third for the quantiles of z.

    The first and the last layer stay with Adam: their rows and columns are colours, not features.
    """
    g_a: Any = codec.g_a
    g_s: Any = codec.g_s
    ends = {g_a[0].conv1.weight, g_a[0].skip.weight, g_s[-1][0].weight}
    quantiles = codec.entropy_bottleneck.quantiles
    groups: dict[str, list[dict[str, object]]] = {"soap": [], "adam": []}
    for name, parameter in codec.named_parameters():
        if parameter is not quantiles:
            kind = "soap" if parameter.ndim == 4 and parameter not in ends else "adam"
            part = "transforms" if name.startswith(("g_a", "g_s")) else "entropy"
            groups[kind].append({"params": [parameter], "name": name, "part": part})
    soap = SOAP(groups["soap"], lr=SOAP_RATE)
    context = codec.context_prediction  # a step along the basis moves taps that the mask zeroes
    soap.register_step_post_hook(lambda *_: context.weight.data.mul_(context.mask))
    # GDN's gamma is stored as a root, whose gradient is a millionth where it is small: no eps may drown it.
    adam = torch.optim.Adam(groups["adam"], lr=ADAM_RATE, eps=1e-15)
    return [soap, adam, torch.optim.Adam([quantiles], lr=QUANTILES_RATE)]


@torch.no_grad()
def input_scales(codec: DeepAnchor, x: Tensor) -> dict[str, float]:
    """The root mean square of what each kernel of the entropy model reads, by the kernel's name, if it is above one.

    Their rates are divided by it; the kernels of g_a and g_s are :func:`whitened`.
    """
    scales: dict[str, float] = {}

    def look(name: str, layer: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        scales[name] = max(1.0, float(inputs[0].square().mean().sqrt()))

    convolutions = [(name, layer) for name, layer in codec.named_modules() if isinstance(layer, torch.nn.Conv2d)
                    and not name.startswith(("g_a", "g_s"))]  # fmt: skip
    hooks = [layer.register_forward_hook(partial(look, f"{name}.weight")) for name, layer in convolutions]
    codec(x)
    for hook in hooks:
        hook.remove()
    return scales


def pyramid(widths: tuple[int, int, int, int]) -> DeepAnchor:
    """A fresh codec of these widths, at a half to a sixteenth of the resolution."""
    w1, w2, w3, m = widths
    return DeepAnchor(w1, m, (w2, w3))
