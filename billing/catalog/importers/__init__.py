"""Price lists of others as price books: LiteLLM's map (:mod:`.litellm`), the sheet of a finance office (:mod:`.sheet`).

Values in; text and a list of what could not be expressed out. Nothing here opens a file or asks for the time, and no
price is converted by an exchange rate.
"""
