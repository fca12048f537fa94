"""Composition in a finite group by one hidden layer: two elements as one-hot inputs, their product as the output."""
