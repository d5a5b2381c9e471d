"""The report: one page over all papers, with their tables, charts, runs and commands, that needs no network to be read."""
