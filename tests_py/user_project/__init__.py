"""A program of a user: type-checked by `mypy --strict` and run by tests_py/test_user_project.py. It names everything public once."""
