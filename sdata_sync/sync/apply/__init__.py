"""Apply received feeds (SData sync 5.3 to 5.5).

==============  ========================================================================
``receive``     read a posted feed, check its ticks, apply it in one transaction
``applier``     decide each entry of the feed
``recorder``    the sync states of this node, and the ticks that it assigns during a feed
``batch``       entries that are decided together, with the versions of this node
``conflicts``   decide concurrent versions, record them
``store``       write a batch of decided versions
``duplicates``  merge a received version with a row that is the same thing
``results``     the result of each entry for the sender
``limits``      limit mass deletions, and what one sender leaves waiting
``anomalies``   report wrong clocks, and two nodes with one URL
==============  ========================================================================
"""
