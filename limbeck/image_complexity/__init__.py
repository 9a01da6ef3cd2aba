"""How complex images are to a network, and benchmarks of easy and hard classes made from that."""
