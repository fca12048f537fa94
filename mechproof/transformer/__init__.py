"""Any small transformer: what can always be proved of it, by trying every input."""
