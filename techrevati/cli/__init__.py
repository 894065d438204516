"""The ``techrevati`` command."""
