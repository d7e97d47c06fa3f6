"""Which text is trained on."""
