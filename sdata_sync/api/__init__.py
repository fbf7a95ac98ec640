"""Answer HTTP requests of peers and clients.

===============  ================================
``urls``         the URLs below the dataset URL
``throttling``   limit the requests of one login within a minute
``permissions``  check the permission that a view requires
``negotiation``  media types
``parsers``      read request bodies
``renderers``    write response bodies
``errors``       answer exceptions with diagnoses
``views``        the views
===============  ================================
"""
