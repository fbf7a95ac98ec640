"""What leads to other rows: the contents of a resource, and back.

==================  ======================================================================================
``contents``        the texts of a resource's properties and relations, which its etag is a hash of
``directory``       which uuid belongs to which row
``reference``       foreign keys
``generic``         generic foreign keys
``association``     many-to-many fields
``children``        rows that travel inside their parent
``placing``         what a payload refers to, written into a row; what has not come yet
``inside``          children and associations, written
``claims``          which of two parents has a child that both name
``settling``        what waited, when it has come
``referrers``       whoever points at a row that is about to go
==================  ======================================================================================
"""
