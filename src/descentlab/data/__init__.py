"""Read, check, split and scale data: what comes out is plain arrays."""

SPLITS = ("train", "validation", "test")  # of the data, in the order in which they are cut
