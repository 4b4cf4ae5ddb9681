"""Words of the command line in, calls out; no other room imports it."""
