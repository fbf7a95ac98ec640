"""Implement the algorithm: ticks, digests, select, gap check, decide, resolve, advance.

All functions are pure and work on small frozen values. This package uses no Django, no XML, no clock and no network. No
other package repeats a decision that is made here.

==============  ==========================================================================================
``digest``      ``DigestEntry`` and ``Digest``, a version vector; ``advance`` and ``merge`` (5.5)
``state``       ``SyncState``, one dot of that vector; the total order of states
``text``        texts compared without case, and shown on one line
``ranges``      ranges of ticks: the changes that a target lacks (2.5)
``order``       the order and the contiguity of ticks in a feed (4.4, 5.8)
``decision``    apply, ignore or conflict, and the winner of a conflict (2.3, 2.6, 5.4)
==============  ==========================================================================================

The numbers in brackets are pages of the specification (``SData sync``).
"""
