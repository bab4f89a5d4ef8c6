"""The experiment file: its schema, its reader, its search space, and the texts of its fields.

A new field belongs here. What the field does belongs where it is used; nothing here knows runs, records or Ray.
"""
