"""Metrics files and the HTML report."""
