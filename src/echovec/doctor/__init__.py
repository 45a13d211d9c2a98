"""Doctor: what is installed, what the machine can do, and whether vectors are right on it.

Each finding says what was found and, where that is not well, what to do. Nothing is fetched or
changed, and no text, vector, user name or secret is in it: it is made to be put into a bug report.
"""
