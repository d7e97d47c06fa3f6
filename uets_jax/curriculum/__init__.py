"""In which order text is trained on: how hard it is, and how hard it may be."""
