"""A module that an adapter targets, and the shapes of its tensors: matrices, or at a convolution kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rootstock.adapters.bundle.kinds.block_diagonal import whole_matrix
from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, Convolution, FoundationSpec, Rejected, TaskClass

# Foundations list no site for such a convolution. PEFT's LoRA of a grouped one reads the channels of all groups.
_GROUPED = (
    "this convolution is grouped (a depthwise one is), or its weight is computed from other tensors, and the "
    "adapters of a batch share it"
)
# PEFT has no layer of these kinds for a one-dimensional convolution.
_PLANAR = ("IA3", "ADALORA")


@dataclass(frozen=True)
class TargetModule:
    """A linear layer or a convolution: its full name in the task class, its site in the trunk, and its features.

    `width_in` is channels * kernel area at a convolution. PEFT saves the factors of its LoRA as convolutions of
    shapes (r, channels, *kernel) and (out, r, 1, …); here they are matrices like those of a linear layer.
    """

    name: str
    site: str
    width_in: int
    width_out: int
    convolution: Convolution | None = None

    def take_factors(
        self, left: dict[str, Array], rank: int, blocked: str | None = None, blocks: int = 1
    ) -> tuple[Array, Array]:
        """Take LoRA's A and B, and return them as matrices: (r, in) and (out, r).

        `blocked` is the factor, "A" or "B", of which the file holds only the blocks of its diagonal, `blocks` of
        them. Raise Rejected as `take` does, and if the blocks do not divide the matrix.
        """
        if blocked is not None:
            return self._take_blocked(left, rank, blocked, blocks)
        kernel = self._kernel
        a_shape = (rank, self._channels, *kernel) if kernel else (rank, self.width_in)
        a = take(left, f"{self.name}.lora_A.weight", a_shape)
        b = take(left, f"{self.name}.lora_B.weight", (self.width_out, rank, *self._ones))
        return a.reshape(rank, self.width_in), b.reshape(self.width_out, rank)

    def _take_blocked(self, left: dict[str, Array], rank: int, blocked: str, blocks: int) -> tuple[Array, Array]:
        shapes = {"A": (rank, self.width_in), "B": (self.width_out, rank)}
        out, inside = shapes[blocked]
        if self._kernel or out % blocks or inside % blocks:
            message = f"{blocks} blocks do not divide lora_{blocked} of {self.name}, {[out, inside]}"
            raise wrong_option("use_bdlora", message)
        shapes[blocked] = out, inside // blocks
        taken = {n: take(left, f"{self.name}.lora_{n}.weight", shape) for n, shape in shapes.items()}
        taken[blocked] = whole_matrix(taken[blocked], blocks)
        return taken["A"], taken["B"]

    def take_magnitude(self, left: dict[str, Array]) -> Array:
        """Take DoRA's magnitude and return it as a vector (out,)."""
        shape = (1, self.width_out, *self._ones) if self._kernel else (self.width_out,)
        return take(left, f"{self.name}.lora_magnitude_vector", shape).reshape(self.width_out)

    def take_input_scale(self, left: dict[str, Array]) -> Array:
        """Take IA3's factor of the input and return it as a vector: one number for each feature or channel."""
        width = self._channels if self._kernel else self.width_in
        return take(left, f"{self.name}.ia3_l", (1, width, *self._ones)).reshape(width)

    def take_output_scale(self, left: dict[str, Array]) -> Array:
        """Take IA3's factor of the output and return it as a vector (out,)."""
        shape = (1, self.width_out, *self._ones) if self._kernel else (self.width_out, 1)
        return take(left, f"{self.name}.ia3_l", shape).reshape(self.width_out)

    @property
    def _kernel(self) -> tuple[int, ...]:
        return () if self.convolution is None else self.convolution.kernel

    @property
    def _ones(self) -> tuple[int, ...]:
        return (1,) * len(self._kernel)

    @property
    def _channels(self) -> int:
        return self.width_in // math.prod(self._kernel)


def target_module(name: str, kind: str, task_class: TaskClass, foundation: FoundationSpec) -> TargetModule:
    """Return the targeted module with this name.

    Raise Rejected (check "sites") for a module of the head, and for a convolution that an adapter of this kind
    cannot change.
    """
    if not name.startswith(task_class.prefix):
        raise Rejected("sites", name, "this module belongs to the head; target only modules of the trunk")
    site = name.removeprefix(task_class.prefix)
    if site not in foundation.sites:
        reason = _GROUPED if name in task_class.convolutions else "the adapters of a batch share this module"
        raise Rejected("sites", name, f"{reason}; leave it out of target_modules")
    convolution = foundation.convolutions.get(site)
    if convolution is not None:
        _check_convolution(name, kind, convolution)
    return TargetModule(name, site, *task_class.linears[name], convolution)


def _check_convolution(name: str, kind: str, convolution: Convolution) -> None:
    reason = None
    if convolution.groups > 1:
        reason = _GROUPED
    elif kind in _PLANAR and len(convolution.kernel) == 1:
        reason = f"PEFT has no {kind} of a one-dimensional convolution"
    elif kind == "LORA" and set(convolution.dilation) != {1} and math.prod(convolution.kernel) > 1:
        reason = "this convolution is dilated, and PEFT's LoRA of it is not, so that their outputs differ in size"
    if reason is not None:
        raise Rejected("sites", name, f"{reason}; leave it out of target_modules")
