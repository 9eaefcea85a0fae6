"""Speaking one dialect to a client and another to its upstream. Pure: no trio, no clock, no chance."""
