"""One small file per role pool, made to be copied."""
