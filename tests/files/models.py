"""Models with files. The storage of each node is a directory of its own."""

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.core.files.storage import FileSystemStorage
from django.db import models

from sdata_sync.conf import conf

ROOT = Path(tempfile.gettempdir()) / "sdata_sync_test_files"


class NodeStorage(FileSystemStorage):
    """Keeps the files of the node that is at work."""

    @property
    def base_location(self):
        return str(ROOT / str(urlsplit(conf.base_url).hostname))

    @property
    def location(self):
        return self.base_location


class Report(models.Model):
    title = models.CharField(max_length=50)
    file = models.FileField(upload_to="reports", storage=NodeStorage(), blank=True)
    scan = models.FileField(upload_to="scans", storage=NodeStorage(), blank=True, null=True)


class Photo(models.Model):
    """An image whose size is stored, and which is written by save() because of ``modified``."""

    name = models.CharField(max_length=50)
    image = models.ImageField(upload_to="photos", storage=NodeStorage(), width_field="width", height_field="height")
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    modified = models.DateTimeField(auto_now=True)


class Appendix(models.Model):
    report = models.ForeignKey(Report, models.CASCADE, related_name="appendices")
    file = models.FileField(upload_to="appendices", storage=NodeStorage())
