"""Rules, a file each: mechanism, what it reads, threshold with its reason, remedy, and where it is silent."""
