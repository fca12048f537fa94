"""Modular addition by a ReLU MLP with constant attention: the sum over neurons as quadrature,
and the certificate of the whole network."""
