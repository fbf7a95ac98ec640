"""Read and write the content of resources.

=================  ==============================================================
``rows``           read rows of a model by local key
``references``     encode references and associations as uuids
``children``       read and encode rows that are sent inside their parent
``contents``       read the field texts of rows, which the etag is a hash of
``resolve``        turn a payload into a change of a row
``pending``        store references whose target has not arrived, fill them in
``referrers``      find the rows that refer to a row
``cascade``        find rows that a deletion also deletes; defer the deletion
``boundary``       check that a peer with a part of the rows writes within it
``conditions``     store which digests a deferred deletion waits for
``write``          create, update and delete rows, children and associations
``upgrade``        write stored unknown elements into columns that exist now
``aside``          keep entries aside that a peer with a part of the rows has sent
``deferred``       store entries that cannot be applied, and retry them
=================  ==============================================================
"""
