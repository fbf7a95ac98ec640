"""The algorithm: ticks, digests, select, gap check, decide, resolve, advance.

Pure functions on small frozen values. Nothing here knows Django, XML, a clock or a network, and nothing
outside decides what these functions decide.

==============  ==========================================================================================
``digest``      ``DigestEntry`` and ``Digest``, a version vector; ``advance`` and ``merge`` (5.5)
``state``       ``SyncState``, one dot of that vector; what makes one state later than another
``selection``   what a target lacks (2.5)
``order``       the order and the contiguity of ticks in a feed (4.4, 5.8)
``decision``    apply, ignore or conflict, and who wins it (2.3, 2.6, 5.4)
==============  ==========================================================================================

The numbers in brackets are pages of the specification (``SData sync``).
"""
