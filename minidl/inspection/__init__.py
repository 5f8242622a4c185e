"""Inspection of networks: what they compute, as a table (summary) and as a figure (plot)."""
