"""Composition of two permutations, given as matrices, by a ReLU layer: proofs about all (K!)^2 inputs."""
