"""GEN3C as a MODEL of core's: the network, its conditions, and the teacher's view of it."""
