"""The growable transformer and its named sizes."""
