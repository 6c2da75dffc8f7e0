"""Grokking of modular addition (Power et al. 2022; Nanda et al. 2023), and how its claims are checked."""
