"""Decide when and in which process peers are synchronised. The setting ``DELIVERY`` names one backend.

================  ===================================================
``base``          the interface of a backend
``thread``        the default: a thread of the process for each peer
``manual``        deliver by ``sync_catchup`` only
``worker``        deliver from ``sync_deliver``, a process of its own
``jobs``          the jobs of a task queue
``queue``         deliver from the workers of a task queue
``celery``        Celery
``django_tasks``  tasks of Django
================  ===================================================
"""
