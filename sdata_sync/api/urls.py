"""Map the URLs under the dataset URL to views, ignoring case (SData sync 4.1).

The case-insensitive flag is inside a named group, because Django ignores the group's pattern when it reverses URLs.
"""

from django.urls import re_path

from .views.linked import LinkedBatchView, LinkedResourceView, LinkedView
from .views.resources import CollectionView, ResourceView
from .views.schema import DatasetSchemaView, KindSchemaView
from .views.sync import DigestView, ResultsView, SourceView, TargetView, UnknownView

app_name = "sdata_sync"

# The id of an operation, if the URL names one: $syncSource('id').
_ID = r"(?:\('(?P<tracking_id>.+)'\))?"

urlpatterns = [
    re_path(r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:syncDigest))/?$", DigestView.as_view(), name="sync-digest"),
    re_path(rf"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:syncSource)){_ID}/?$", SourceView.as_view(), name="sync-source"),
    re_path(rf"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:syncTarget)){_ID}/?$", TargetView.as_view(), name="sync-target"),
    re_path(r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:syncResults))/?$", ResultsView.as_view(), name="sync-results"),
    re_path(r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:linked))/?$", LinkedView.as_view(), name="linked"),
    re_path(
        r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:linked/\$batch))/?$",
        LinkedBatchView.as_view(),
        name="linked-batch",
    ),
    re_path(
        r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:linked))\('(?P<uuid>[^/]+)'\)/?$",
        LinkedResourceView.as_view(),
        name="linked-resource",
    ),
    re_path(r"^\$(?P<operation>(?i:schema))/?$", DatasetSchemaView.as_view(), name="schema"),
    re_path(r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:schema))/?$", KindSchemaView.as_view(), name="kind-schema"),
    re_path(r"^(?P<kind>[^/$(']+)/?$", CollectionView.as_view(), name="collection"),
    re_path(r"^(?P<kind>[^/$(']+)\('(?P<key>.+)'\)/?$", ResourceView.as_view(), name="resource"),
    re_path(r"^(?P<rest>.*)$", UnknownView.as_view(), name="unknown"),
]
