"""Max-of-K transformers: one layer, one head, no MLP; from the tensors of a file to the number of inputs that are
certainly right."""
