"""What the model does not know: one cheap posterior, and the costly references."""
