"""Lanes on other computers, reached through Dask: it carries orders and results, and decides nothing.

A bridge on this computer stands for the attempt process of each lane, which lives on the lane's host.
"""
