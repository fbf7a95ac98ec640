"""Store the keys of endpoints and operations as ``core.text.fold`` makes them, and keep partial replicas."""

from django.db import migrations

from sdata_sync.core.text import fold


def fold_keys(apps, schema_editor):
    """Rewrite the keys with characters outside ASCII; a key that another row has already stays as it is."""
    for name, source in (("Endpoint", "url"), ("Operation", "tracking_id")):
        model = apps.get_model("sdata_sync", name)
        rows = model.objects.using(schema_editor.connection.alias)
        for row in rows.iterator():
            key = fold(getattr(row, source))
            if key != row.key and len(key) <= model._meta.get_field("key").max_length:
                others = rows.filter(key=key) if name == "Endpoint" else rows.filter(key=key, kind=row.kind, role=row.role)
                if not others.exists():
                    rows.filter(pk=row.pk).update(key=key)


def keep_partial_replicas(apps, schema_editor):
    """Let the peers that give this node a part of the rows go on with it: that must be agreed from now on."""
    using = schema_editor.connection.alias
    digests = apps.get_model("sdata_sync", "Digest").objects.using(using).exclude(part_of="")
    datasets = {fold(part_of.rpartition("/")[0]) for part_of in digests.values_list("part_of", flat=True)}
    peers = apps.get_model("sdata_sync", "Peer").objects.using(using)
    for peer in peers if datasets else ():
        if fold(peer.url) in datasets:
            peers.filter(pk=peer.pk).update(filters_us=True)


class Migration(migrations.Migration):
    dependencies = [("sdata_sync", "0005_trust")]

    operations = [
        migrations.RunPython(fold_keys, migrations.RunPython.noop, elidable=True),
        migrations.RunPython(keep_partial_replicas, migrations.RunPython.noop, elidable=True),
    ]
