"""Optional apps beside ``sdata_sync``.

=========  ==========================================================
``files``  fetch the files of file fields from the peer that has them
=========  ==========================================================
"""
