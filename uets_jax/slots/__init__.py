"""The slots of the system, and what they put into a run."""
