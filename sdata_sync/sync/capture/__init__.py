"""Capture changes that are written through the ORM.

===========  =================================================
``nested``   mark the parent of a changed child or association
``signals``  mark the resource of a saved or deleted row
===========  =================================================
"""
