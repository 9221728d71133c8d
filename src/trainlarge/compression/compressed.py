"""A compressed model: what ``compress`` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from trainlarge.compression.parts import left_by_matrix, loss_of_parts, nearly_lost
from trainlarge.compression.stored.packing import Packed
from trainlarge.compression.stored.sizes import Sizes
from trainlarge.compression.stored.stored_tensor import DenseWeights
from trainlarge.compression.training import TrainingCost
from trainlarge.compression.weights import Weights
from trainlarge.config.method import MatrixMethod
from trainlarge.config.recipe import Recipe
from trainlarge.models.fake_quantize import fake_quantize_inputs


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model: the float weights to evaluate, what goes to the packed file, and the sizes."""

    recipe: Recipe
    """How it was made."""

    packed: Packed
    """What goes to the packed file; quantized weights are held here as codes of one byte."""

    sizes: Sizes
    """Parameters, ideal bytes and bytes of the packed file."""

    left: Weights
    """What is left of the checkpoint: names, shapes and modules. Its tensors are those before the last rounding."""

    training: TrainingCost | None = None
    """What training took, where the recipe trains."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Tensor name -> rounded float tensor, tied ones once; ``load_stored`` puts them into a model of these shapes.

        Tensors that were rounded are made whenever they are asked for; those that the recipe left alone are shared with
        the snapshot: read only.
        """
        return DenseWeights(self.packed.stored)

    @property
    def pruned_share(self) -> float | None:
        """Share of the weights that are zero, counted, in the matrices that pruning acts on; None without pruning.

        A weight that quantization rounds to 0 is not pruned.
        """
        prune = self.recipe.prune
        if not isinstance(prune, MatrixMethod):
            return None
        tensors = [self.packed.stored[name] for name in self.left.selected(prune.embeddings)]
        return 1 - sum(tensor.nonzero for tensor in tensors) / max(1, sum(tensor.shape.numel() for tensor in tensors))

    @property
    def left_by_matrix(self) -> dict[str, float]:
        """Name of a matrix -> share of its weights that are not zero."""
        return left_by_matrix(self.left, self.packed.stored)

    @property
    def nearly_lost(self) -> list[str]:
        """Matrices of which nearly nothing is left, and far less than of the rest, from the emptiest on."""
        return nearly_lost(self.left, self.packed.stored)

    @property
    def warning(self) -> str | None:
        """One line about parts of which nearly nothing is left, and far less than of the rest; None without any."""
        return loss_of_parts(self.left, self.packed.stored, self.recipe)

    @property
    def coded_bytes(self) -> tuple[int, int]:
        """Exact bytes of the packed file with ``Recipe(entropy_coding="zstd")``, and without those of its embeddings.

        Codes are coded to know it.
        """
        coded = self.packed.entropy_coded()
        whole = coded.file_bytes()
        return whole, whole - sum(map(coded.payload_bytes, self.left.embeddings))

    @property
    def has_other_shapes(self) -> bool:
        """Whether the weights no longer fit into a model with the shapes of the checkpoint."""
        return bool(self.left.structure)

    def model(self) -> nn.Module:
        """A new model with these weights, ready to use; what was not rounded is held itself, so leave it as it is.

        Where the recipe rounds activations, so does the model.
        """
        model = replace(self.left, tensors=self.weights).model()
        fake_quantize_inputs(model, self.packed.quantizers)
        return model

    def expanded(self) -> Mapping[str, Tensor]:
        """The weights in the names and shapes of the checkpoint: 0 where something was removed, factors multiplied.

        Without factors and with the whole vocabulary, a model of the checkpoint's shapes that holds them gives the same
        logits.
        """
        return self.left.expanded(self.weights)
