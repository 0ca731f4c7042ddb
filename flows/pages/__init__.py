"""The report: one HTML page about a build and its policy, which opens without a network."""
