"""Link rows to uuids (SData sync 1.2).

=========  ======================================
``merge``  merge two rows that are the same thing
``link``   link and unlink rows, keep aliases
=========  ======================================
"""
