"""FLOPs, joules, bytes and seconds."""
