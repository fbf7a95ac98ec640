"""Read and write the content of resources.

=================  ==============================================================
``rows``           read rows of a model by local key
``references``     encode references and associations as uuids
``children``       encode rows that travel inside their parent
``contents``       the texts of properties and relations, and their etag
``resolve``        turn a payload into a change of a row
``pending``        keep references whose target has not arrived, and fill them in
``referrers``      find the rows that refer to a row
``cascade``        find the rows that a deletion takes along, defer deletions
``conditions``     store which digests a deferred deletion waits for
``nested_writer``  write children and associations
``writer``         create, update and delete rows
``upgrade``        write unknown elements into columns that exist now
``deferred``       keep entries that cannot be applied, and try them again
=================  ==============================================================
"""
