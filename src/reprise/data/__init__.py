"""Data sets: one small file per source. Kept free of imports, because the command line reads ``store`` before torch."""
