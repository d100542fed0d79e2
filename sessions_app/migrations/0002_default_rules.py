from django.db import migrations

# As agents_app's policy has them when a rule is missing; here operators see them, and may change them.
RULES = [
    (10, "write_file", "Writes a file"),
    (20, "delete_file", "Deletes a file"),
    (30, "move_file", "Moves or renames a file"),
    (40, "create_directory", "Creates a directory"),
    (50, "execute_command", "Runs a command"),
    (60, "apply_diff", "Changes a file"),
]


def add_rules(apps, schema_editor):
    rule = apps.get_model("sessions_app", "PolicyRule")
    rule.objects.bulk_create(
        rule(order=order, pattern=pattern, needs_approval=True, reason=reason) for order, pattern, reason in RULES
    )


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0001_initial")]
    operations = [migrations.RunPython(add_rules, migrations.RunPython.noop)]
