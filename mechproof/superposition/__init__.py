"""Computation in superposition: all ANDs of two features out of fewer neurons, from the tensors to the count."""
