"""A labelled file against a contract: which column is which, how fields are read, and one report on all of it. Pure.

The file itself is opened in `selfheal.adapters.csv_files`.
"""
