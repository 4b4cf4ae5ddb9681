"""Read, check, split and scale data: what comes out is plain arrays."""
