"""What the book's pages draw: a file a page. Only notebooks import from here."""
