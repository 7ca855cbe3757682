"""Jobs on a cluster, seen from outside: sending, following, listing and stopping them. Needs `ray[default]` alone."""
