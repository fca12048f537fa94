"""Max of K by one layer of attention, whatever is around it: norms, fixed tokens, more outputs, several heads."""
