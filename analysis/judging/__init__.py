"""From a claim to its result: what a claim is, what is measured of a run, and the rules that judge it."""
