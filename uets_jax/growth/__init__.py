"""Growing and pruning a model while it trains."""
