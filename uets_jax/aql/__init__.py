"""AQL v2: selection, uncertainty and curriculum as one selection of a step."""
