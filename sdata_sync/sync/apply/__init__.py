"""Apply received feeds (SData sync 5.3 to 5.5).

==============  ========================================================================
``receive``     read a posted feed, check its ticks, apply it in one transaction
``applier``     decide each entry of the feed
``recorder``    the states that this node holds, and the ticks that it assigns meanwhile
``batch``       entries with the versions that this node holds
``conflicts``   decide concurrent versions, record them
``store``       write a batch of decided versions
``duplicates``  make one resource of two
``results``     the result of each entry for the sender
``anomalies``   report wrong clocks, and two nodes with one URL
==============  ========================================================================
"""
