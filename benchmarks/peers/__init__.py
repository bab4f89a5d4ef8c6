"""The same work without tandem: a script each, that prints what it measured as JSON on its last line."""
