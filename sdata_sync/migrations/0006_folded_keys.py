"""Store the keys of endpoints and operations as ``core.state.fold`` makes them; they were in lower case."""

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


class Migration(migrations.Migration):
    dependencies = [("sdata_sync", "0005_trust")]

    operations = [migrations.RunPython(fold_keys, migrations.RunPython.noop, elidable=True)]
