"""Convert bytes to core values and back: Atom feeds, digests, results, tracking, diagnoses. Without Django.

==============  ==========================================================================================
``names``       namespaces, tags, media types
``text``        values as XML text: stamps as W3C date-times, escaped texts
``body``        the bytes of a request or response: decompressed, counted, spooled
``document``    bytes to elements: no DTD, bounded depth
``payload``     the contract's element inside an entry
``entry``       one entry of a sync feed or of a result feed
``schema``      the properties of the kinds in an XML schema (SData core 4)
``linked``      the entry that links a uuid to a local key (SData sync 1.3)
``feed``        a feed, read as a stream of entries
``digest``      the digest as an element and as an entry
``diagnosis``   the description of an error (SData core 3.10)
``tracking``    the progress of an asynchronous operation (SData core 3.11)
``renderer``    feeds, written as a stream of text
==============  ==========================================================================================

Writing is strict. Reading is lenient about spelling.
"""
