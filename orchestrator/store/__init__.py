"""Storage and the records in it."""
