"""Containers of metrics, a file each; what keys mean is no business of theirs."""
