"""Bytes to core values and back: Atom feeds, digests, results, tracking, diagnoses. Knows nothing of Django.

==============  ==========================================================================================
``names``       namespaces, tags, media types
``dates``       W3C date-times and stamps
``text``        escaping, and the characters that XML forbids
``body``        a request's or response's bytes: unpacked, counted, spooled
``document``    bytes to elements: no DTD, bounded depth
``payload``     the contract's element inside an entry
``entry``       one entry of a sync feed or of a result feed
``linked``      the entry that says which row has which uuid (SData sync 1.3)
``feed``        a feed, read as a stream of entries
``digest``      the digest as an element and as an entry
``diagnosis``   what is to be said about an error (SData core 3.10)
``tracking``    how far an asynchronous operation is (SData core 3.11)
``renderer``    feeds as a stream of text
==============  ==========================================================================================

Strict in what is written, lenient in spelling when reading.
"""
