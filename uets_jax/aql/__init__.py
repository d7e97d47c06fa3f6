"""Active query learning, version 2: parts of selection, uncertainty, curriculum as one."""
