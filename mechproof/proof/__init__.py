"""What a proof is: balls, counted operations, bounds on products, strategies that search and check,
and the bound that comes out."""
