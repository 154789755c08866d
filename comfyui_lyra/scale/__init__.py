"""Many scenes or pictures: shards of a list, the cards of one machine, or a cluster."""
