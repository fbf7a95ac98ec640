"""Answer HTTP requests of peers and clients.

===============  =========================