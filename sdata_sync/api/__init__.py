"""Answer HTTP requests of peers and clients.

===============  ================================
``urls``         the URLs below the dataset URL
``permissions``  check the permission that a view requires
``negotiation``  media types
``parsers``      read request bodies
``renderers``    write response bodies
``errors``       answer exceptions with diagnoses
``views``        the views
===============  ================================
"""
