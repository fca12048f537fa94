"""What the book's pages draw: a file a page. Only notebooks (and tests) import from here."""
