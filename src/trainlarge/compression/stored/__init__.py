"""How compressed tensors are held, counted and written to a packed file."""
