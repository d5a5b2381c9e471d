"""Rewriting a Deep Generative Model (Bau, Liu, Wang, Zhu, Torralba; ECCV 2020)."""
