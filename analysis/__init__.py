"""Judging: claims with their falsifiers, statistics, theory, and the report."""
