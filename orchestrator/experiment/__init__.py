"""The experiment file: its schema and its reader."""
