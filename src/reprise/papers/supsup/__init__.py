"""Supermasks in Superposition (Wortsman et al., NeurIPS 2020)."""
