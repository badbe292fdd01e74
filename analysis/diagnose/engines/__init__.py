"""Engines, a file each: keys, settings and defaults as their released code has them."""
