"""Fetch the files of file fields from the peers: of a ``FileField`` itself only the path travels.

After a row was received, its paths are written to a list. The delivery backend fetches each file whose path the storage
of this node does not have, in parts, over the login of the synchronisation. A fetch continues where it was interrupted.

==============  =========================================================
``apps``        the app: signal receiver and errand
``models``      the list of wanted files
``paths``       the paths of the files of a row, with their storages
``wanted``      add the files of received rows to the list
``fetch``       fetch wanted files from a peer
``views``       serve the files of this node
``urls``        the URL of a file, which ``sdata_sync.urls`` includes
``admin``       show the list
``management``  the command ``sync_files``
``migrations``  the table of the list
==============  =========================================================
"""
