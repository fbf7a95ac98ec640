"""Write received rows.

===========  ===============================================================================
``columns``  save one row, and set its stored columns to the received values
``parents``  keep the rows of registered parent models as they are
``nested``   write children and associations
``writer``   create, update and delete rows, in bulk where the result is the same
===========  ===============================================================================
"""
