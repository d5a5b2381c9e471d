"""Data Valuation using Reinforcement Learning (Yoon, Arik and Pfister, ICML 2020)."""
