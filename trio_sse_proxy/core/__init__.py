"""Pure rules: no clock, no waiting, no logging, no third-party import."""
