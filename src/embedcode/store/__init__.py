"""Where chunks and vectors live: one contract, two implementations."""
