"""Many small image-tagging models, kept in step with labels, pictures and each other."""
