"""Importers of other price lists as price books.

:mod:`billing.catalog.importers.litellm` imports LiteLLM's price map, :mod:`billing.catalog.importers.sheet` the price
sheet of a finance office. An importer takes values and returns the rows of a book, and for LiteLLM also a list of the
fields that no row expresses. Nothing here opens a file or reads a clock, and no price is converted by an exchange rate.
"""
