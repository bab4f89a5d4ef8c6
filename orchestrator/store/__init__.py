"""What an experiment leaves behind: storage in a directory or behind a URL, and the records in it.

The layout of records and their readers belong here. Whoever measures something decides what a record contains;
`docs/records-and-report.md` lists it.
"""
