"""What is structure and what is slack: the same proofs with structureless noise in the place of parts of a network."""
