"""Whether to believe a result, and where to spend the next minute of annotation."""
