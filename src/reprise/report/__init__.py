"""The report: one page over all papers, with tables, charts, runs and commands, that can be read without a network."""
