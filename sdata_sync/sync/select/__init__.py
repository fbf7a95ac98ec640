"""Select the changes that a digest lacks (SData sync 2.5), and show resources to clients.

=============  ======================================================
``oversize``   leave out versions that are larger than a peer accepts
``changes``    select, read and render one page
``feed``       the source feed, page by page
``catalogue``  resources as clients read them by URL
=============  ======================================================
"""
