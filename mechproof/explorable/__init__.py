"""One call, two faces: a drawing with controls, as widgets where a kernel is attached and as one element on a page."""
