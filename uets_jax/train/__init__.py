"""The loop: mesh, phases, checkpoints."""
