"""What is learned from many short runs: knobs of policies, by evolution strategies."""
