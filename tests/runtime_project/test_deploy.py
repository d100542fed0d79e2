"""Production settings: Django's own deployment checks have nothing to say, and ours only where there is something."""

from pathlib import Path

from tests.runtime_project.programs import manage

KEY = "a-long-and-private-key-0123456789"


def deploy_check(directory: Path, **variables: str) -> tuple[int, str]:
    done = manage(directory, "check", "--deploy", "--fail-level", "WARNING", **variables)
    return done.returncode, done.stderr


def test_deploy_check_is_clean_with_https(tmp_path: Path) -> None:
    assert deploy_check(tmp_path, AGENT_RUNTIME__HTTPS="true", AGENT_RUNTIME__INTERNAL_API_KEY=KEY) == (0, "")


def test_deploy_check_is_clean_with_https_and_generated_keys(tmp_path: Path) -> None:
    assert deploy_check(tmp_path, AGENT_RUNTIME__HTTPS="true") == (0, "")


def test_deploy_check_misses_https(tmp_path: Path) -> None:
    code, said = deploy_check(tmp_path)
    assert code == 1
    assert "security.W008" in said


def test_deploy_check_names_a_short_key(tmp_path: Path) -> None:
    code, said = deploy_check(tmp_path, AGENT_RUNTIME__HTTPS="true", AGENT_RUNTIME__INTERNAL_API_KEY="short")
    assert code == 1
    assert "agents_app.W001" in said


def test_no_migration_is_missing(tmp_path: Path) -> None:
    done = manage(tmp_path, "makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout
