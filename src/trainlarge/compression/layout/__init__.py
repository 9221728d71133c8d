"""How a model is laid out: what is a head, a neuron, a layer or a token table of it."""
