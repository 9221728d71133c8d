"""Removing whole layers."""

from __future__ import annotations

from trainlarge.compression.registry import Shared, reshapes
from trainlarge.compression.structure.calibrated_importance import layer_similarity
from trainlarge.compression.structure.cut import encoder_of, keep_layers
from trainlarge.compression.weights import Weights
from trainlarge.config.structure import LayerList, Layers


@reshapes(Layers)
def layers(method: Layers, weights: Weights, shared: Shared) -> Weights:
    """Keep a share of the layers."""
    encoder = encoder_of(weights, "structure.name=layers")
    depth, count = encoder.depth, method.kept(encoder.depth)
    if method.choice == "contribution":
        key = ("layers", method.calibration_rows)
        similar = shared.once(key, lambda: layer_similarity(method, weights, encoder, shared))
        removed = similar.argsort(descending=True, stable=True).tolist()
    else:
        removed = removal_order(method.choice, depth, count)
    return keep_layers(weights, sorted(set(range(depth)) - set(removed[: depth - count])))


@reshapes(LayerList)
def layer_list(method: LayerList, weights: Weights, _shared: Shared) -> Weights:
    """Keep the layers of the list."""
    depth = encoder_of(weights, "structure.name=layer_list").depth
    method.check_depth(depth)
    return keep_layers(weights, list(method.layers))


def removal_order(choice: str, depth: int, count: int) -> list[int]:
    """Layers in the order in which they are removed, where ``count`` of ``depth`` stay."""
    down = list(range(depth - 1, -1, -1))
    every_second = down[1::2]
    orders = {
        "top": down,
        "bottom": down[::-1],
        "alternate": every_second + [layer for layer in down if layer not in every_second],
        "symmetric": list(range(-(-count // 2), depth)),
    }
    return orders[choice]
