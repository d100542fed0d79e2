import django.utils.timezone
from django.db import migrations, models

FIELDS = (
    "order", "pattern", "agent", "paths", "commands", "argument", "expression", "action", "reason", "expires_seconds",
    "enabled",
)  # fmt: skip


def say_what_they_do(apps, schema_editor):
    apps.get_model("sessions_app", "PolicyRule").objects.filter(needs_approval=False).update(action="allow")


def keep_the_first_version(apps, schema_editor):
    rules = apps.get_model("sessions_app", "PolicyRule").objects.order_by("order", "id")
    told = [{name: getattr(rule, name) for name in FIELDS} | {"valid_until": None} for rule in rules]
    apps.get_model("sessions_app", "PolicyVersion").objects.create(number=1, rules=told, who="system")


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0012_callers_of_runs")]
    operations = [
        migrations.AddField(
            model_name="policyrule",
            name="action",
            field=models.CharField(
                choices=[("ask", "needs approval"), ("allow", "allow"), ("forbid", "forbid")],
                default="ask",
                max_length=8,
                verbose_name="action",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="agent",
            field=models.CharField(
                blank=True,
                help_text="An agent's type, such as debug; empty: any.",
                max_length=64,
                verbose_name="agent pattern",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="argument",
            field=models.CharField(
                blank=True,
                help_text="The argument that the expression is about.",
                max_length=64,
                verbose_name="argument",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="commands",
            field=models.TextField(
                blank=True,
                help_text="One a line: git status. To allow, the whole command must be one simple command that begins so; to ask or forbid, any part of it.",
                verbose_name="command prefixes",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="expires_seconds",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Empty: as set; 0: never.",
                null=True,
                verbose_name="approvals expire after, seconds",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="expression",
            field=models.CharField(
                blank=True,
                help_text="RE2; it must match the argument's whole text.",
                max_length=1000,
                verbose_name="expression",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="paths",
            field=models.TextField(
                blank=True,
                help_text="Globs, one a line: docs/**, *.md. To allow, every path of the call must match; to ask or forbid, one is enough.",
                verbose_name="paths",
            ),
        ),
        migrations.AddField(
            model_name="policyrule",
            name="valid_until",
            field=models.DateTimeField(
                blank=True,
                help_text="After it the rule does not count. Empty: for ever.",
                null=True,
                verbose_name="valid until",
            ),
        ),
        migrations.AlterField(
            model_name="policyrule",
            name="reason",
            field=models.CharField(
                blank=True,
                help_text="Read by the person who is asked, or by the model.",
                max_length=500,
                verbose_name="reason",
            ),
        ),
        migrations.RunPython(say_what_they_do, migrations.RunPython.noop),
        migrations.RemoveField(
            model_name="policyrule",
            name="needs_approval",
        ),
        migrations.CreateModel(
            name="PolicyVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(unique=True, verbose_name="number")),
                ("rules", models.JSONField(default=list, verbose_name="rules")),
                ("who", models.CharField(blank=True, max_length=150, verbose_name="who")),
                ("note", models.CharField(blank=True, max_length=500, verbose_name="note")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={
                "verbose_name": "policy version",
                "verbose_name_plural": "policy versions",
                "ordering": ("-number",),
            },
        ),
        migrations.RunPython(keep_the_first_version, migrations.RunPython.noop),
    ]
