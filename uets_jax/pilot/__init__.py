"""The pilot: short paired runs that say which methods help on a text."""
