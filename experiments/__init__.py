"""Experiment scripts: one per question."""
