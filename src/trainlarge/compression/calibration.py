"""Calibration: statistics of the inputs of linear layers, which some methods need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from trainlarge.compression.attention_masks import Masks, counted, masks_of
from trainlarge.compression.model_tensors import load_weights
from trainlarge.compression.weights import Weights
from trainlarge.config.prune import SparseGPT
from trainlarge.config.quantize import GPTQ
from trainlarge.errors import UserError

Batch = Tensor | Mapping[str, Tensor]
"""Inputs of a forward pass, rows first: one tensor, or keyword arguments such as ``input_ids`` and ``attention_mask``.
Positions where ``attention_mask`` is 0 do not count, nor, in the decoder of an encoder-decoder, those where
``decoder_attention_mask`` is."""


class Calibration:
    """Statistics of the inputs X [tokens, in] of every linear layer, by the name of its weight [out, in].

    They are computed on first use, and shared by consecutive recipes that need the same ones; statistics as large as
    the model or larger are dropped as soon as other ones are needed. They are always those of the dense model, whatever
    weights the model holds at that time. Embeddings, and linear layers whose weight is tied to one, have none.

    Args:
        weights: the snapshot that is compressed.
        model: the model of the snapshot. A pass loads the snapshot into it.
        batches: returns the batches, from the first one on every call.
    """

    def __init__(self, weights: Weights, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        self.weights, self.model, self.batches = weights, model, batches
        self._squares: dict[int, dict[str, Tensor]] = {}
        self._hessians: dict[int, dict[str, Tensor]] = {}
        self._tied_hessians: dict[int, dict[str, Tensor]] = {}
        self._factors: dict[tuple[int, float], dict[str, Tensor]] = {}
        self._ranges: dict[int, dict[str, tuple[float, float]]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def model_of(self, weights: Weights) -> nn.Module:
        """A model of other weights, which computes where this one does, and in fp32 where this one does."""
        model = weights.model().to(self.device)
        is_wide = all(entry.dtype == torch.float32 for entry in self.model.parameters() if entry.is_floating_point())
        return model.float() if is_wide else model

    def mean_squares(self, rows: int) -> Mapping[str, Tensor]:
        """Name -> float64 [in]: mean of X_j^2 over the tokens of the first ``rows`` rows."""
        if rows not in self._squares:
            self._squares[rows] = self._means(
                rows, self._linears(), lambda inputs: inputs.square().sum(0, dtype=torch.float64)
            )
        return self._squares[rows]

    def hessians(self, rows: int) -> Mapping[str, Tensor]:
        """Name -> float32 [in, in]: X^T X / tokens over the first ``rows`` rows.

        The squared error of W' against W on these inputs is the trace of (W' - W) H (W' - W)^T. Those of the last
        number of rows are kept.
        """
        if rows not in self._hessians:
            self._hessians.clear()
            self._hessians[rows] = self._means(rows, self._linears(), lambda inputs: inputs.T @ inputs)
        return self._hessians[rows]

    def tied_hessians(self, rows: int) -> Mapping[str, Tensor]:
        """As ``hessians``, by the names of embedding matrices that are also the weights of linear layers: outputs."""
        if rows not in self._tied_hessians:
            names = self.weights.weight_names(nn.Linear)
            tied = {name: tensor for name, tensor in names.items() if tensor in self.weights.embeddings}
            layers = {name: layer for name, layer in self._all_linears().items() if name in tied}
            means = self._means(rows, layers, lambda inputs: inputs.T @ inputs)
            self._tied_hessians = {rows: {tied[name]: mean for name, mean in means.items()}}
        return self._tied_hessians[rows]

    def factor(self, name: str, method: SparseGPT | GPTQ) -> Tensor | None:
        """Float32 [in, in]: U, upper triangular, with U^T U = (H + damping * mean(diag H) * I)^-1.

        None where the matrix has no inputs of its own. Those of the last number of rows and damping are kept.

        Raises UserError where the damping is too small for there to be one.
        """
        is_tied = isinstance(method, GPTQ) and method.tied and name in self.weights.embeddings
        hessians = (self.tied_hessians if is_tied else self.hessians)(method.calibration_rows)
        if name not in hessians:
            return None
        key = (method.calibration_rows, method.damping)
        if key not in self._factors:
            self._factors = {key: {}}
        factors = self._factors[key]
        if name not in factors:
            factors[name] = _damped_factor(name, hessians[name], method)
        return factors[name]

    def ranges(self, rows: int) -> Mapping[str, tuple[float, float]]:
        """Name of a linear layer -> the smallest and largest value of its inputs over the first ``rows`` rows.

        Every layer that is called has them, an output layer that is tied to an embedding too.
        """
        if rows not in self._ranges:
            ranges: dict[str, tuple[float, float]] = {}

            def widen(name: str, inputs: Tensor) -> None:
                if inputs.numel():
                    lowest, highest = map(float, torch.aminmax(inputs))
                    before = ranges.get(name, (lowest, highest))
                    ranges[name] = (min(lowest, before[0]), max(highest, before[1]))

            self._see(rows, self._all_linears(), widen)
            self._ranges[rows] = ranges
        return self._ranges[rows]

    def _all_linears(self) -> dict[str, nn.Linear]:
        return {name: layer for name, layer in self.model.named_modules() if isinstance(layer, nn.Linear)}

    def _linears(self) -> dict[str, nn.Linear]:
        """By the names of their weights, those that are no embeddings."""
        own = self.weights.matrices - self.weights.embeddings
        named = ((f"{name}.weight", layer) for name, layer in self._all_linears().items())
        return {name: layer for name, layer in named if name in own}

    def _means(
        self, rows: int, layers: Mapping[str, nn.Linear], statistic: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Means over tokens of a statistic of the inputs of layers that sums over them, in one pass."""
        sums: dict[str, Tensor] = {}
        tokens: dict[str, int] = {}

        def add(name: str, inputs: Tensor) -> None:
            of_batch = statistic(inputs).cpu()
            sums[name] = sums[name] + of_batch if name in sums else of_batch
            tokens[name] = tokens.get(name, 0) + len(inputs)

        self._see(rows, layers, add)
        return {name: total / tokens[name] for name, total in sums.items()}

    def _see(self, rows: int, layers: Mapping[str, nn.Linear], see: Callable[[str, Tensor], None]) -> None:
        """One pass of the dense model: ``see`` gets the inputs, float32 [tokens, in], of every layer and batch."""
        load_weights(self.model, self.weights.tensors)
        with evaluating(self.model), torch.no_grad(), ExitStack() as hooks:
            masks = hooks.enter_context(masks_of(self.model))
            for name, layer in layers.items():
                hooks.callback(layer.register_forward_pre_hook(_seeing(name, see, masks)).remove)
            for batch in first_rows(self.batches(), rows):
                masks.batch, masks.encoded = placed(batch, self.model), None
                forward(self.model, masks.batch)


def first_rows(batches: Iterable[Batch], rows: int) -> Iterator[dict[str, Tensor]]:
    """The first ``rows`` rows of batches (fewer where there are no more) as keyword arguments; a tensor has key ``""``.

    Raises UserError where there is no row at all.
    """
    left = rows
    for batch in batches:
        tensors = {"": batch} if isinstance(batch, Tensor) else dict(batch)
        batch_rows = min((len(tensor) for tensor in tensors.values()), default=0)
        if batch_rows:
            yield {key: tensor[:left] for key, tensor in tensors.items()}
            left -= min(batch_rows, left)
        if not left:
            return
    if left == rows:
        raise UserError("calibration", "no rows", "at least one row of inputs")


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """float32 [n, n]: the upper Cholesky factor of the inverse of the damped ``hessian`` [n, n].

    Raises torch.linalg.LinAlgError where that is not positive definite.
    """
    hessian = hessian.double()
    mean = float(hessian.diagonal().mean())
    # A layer that never saw anything but zeros: any inverse will do, all weights are alike.
    damped = hessian + torch.eye(len(hessian), dtype=hessian.dtype) * (damping * mean if mean else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _damped_factor(name: str, hessian: Tensor, method: SparseGPT | GPTQ) -> Tensor:
    try:
        return inverse_factor(hessian, method.damping)
    except torch.linalg.LinAlgError as error:
        allowed = f"a larger share: with this one the inputs of {name} have no inverse in double precision"
        raise UserError(f"{method.slot}.damping", method.damping, allowed) from error


def _seeing(
    name: str, see: Callable[[str, Tensor], None], masks: Masks
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook before the forward pass of a linear layer that hands on its inputs."""

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(name, counted(inputs[0], masks.of(name, inputs[0])).float())

    return look


def placed(batch: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A batch on the device of a model."""
    device = next(model.parameters()).device
    return {key: tensor.to(device) for key, tensor in batch.items()}


def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> object:
    """What a model gives for keyword arguments on its device, or for one tensor with the key ``""``."""
    output: object = model(batch[""]) if "" in batch else model(**batch)
    return output


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
