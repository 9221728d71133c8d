"""Compression that changes shapes: what an encoder is made of, what is removed from it, and the model that is left."""
